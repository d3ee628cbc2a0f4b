package config

import (
	"io/fs"
	"os"
)

// hostsFile is hosts.allow, hosts.deny and what is not there, on the made-up machine.
func hostsFile(path string) ([]byte, error) {
	switch path {
	case "/etc/hosts.allow":
		return []byte("# who may\nin.ftpd: .example.com 192.0.2.\nin.tftpd: 192.0.2.0/24\nwild: 10.*.0.1\n"), nil
	case "/etc/hosts.deny":
		return []byte("ALL EXCEPT tcpmux, ftp: ALL\n"), nil
	case "/etc/closed/hosts.deny":
		return nil, &os.PathError{Op: "open", Path: path, Err: fs.ErrPermission}
	}
	return nil, &os.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
}

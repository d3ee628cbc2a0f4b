package main

import (
	"debug/elf"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// This file gets the programs: our own C ones are compiled into the scratch
// directory, the peers are unpacked from Debian packages into a cache. The
// packages conflict with one another, so none is ever installed.

//go:embed c/*.c
var sources embed.FS

// compile builds every program of c/ into dir: tiny without libc, and again
// as stay, which is a child that lives on.
func compile(dir string) error {
	files, err := sources.ReadDir("c")
	if err != nil {
		return err
	}
	for _, f := range files {
		text, err := sources.ReadFile("c/" + f.Name())
		if err != nil {
			return err
		}
		source := filepath.Join(dir, f.Name())
		if err := os.WriteFile(source, text, 0o644); err != nil {
			return err
		}
		program := strings.TrimSuffix(source, ".c")
		builds := [][]string{{"-pthread", "-o", program}}
		if f.Name() == "tiny.c" {
			static := []string{"-nostdlib", "-static", "-s", "-Wl,--build-id=none,-z,noseparate-code", "-o"}
			builds = [][]string{append(slices.Clone(static), program), append(slices.Clone(static), filepath.Join(dir, "stay"), "-DSTAY")}
		}
		for _, args := range builds {
			if out, err := exec.Command("gcc", append(args, "-O2", "-Wall", source)...).CombinedOutput(); err != nil {
				return fmt.Errorf("compiling %s: %w\n%s", f.Name(), err, out)
			}
		}
	}
	return nil
}

// cacheDir is $BENCH_CACHE or a directory in the user's cache.
func cacheDir() (string, error) {
	if dir := os.Getenv("BENCH_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "tcpmuxd-bench"), err
}

// peer returns the command that starts a peer's program, fetching its package
// if the cache does not have it, and the version of the package. Where the
// system lacks a library of it, the libraries the package depends on are
// fetched too and the program is started by its loader with their directories:
// an LD_LIBRARY_PATH would be handed on to the children and slow them down.
func peer(cache string, s *server) (command []string, version string, err error) {
	if version, err = fetch(cache, s.pkg); err != nil {
		return nil, "", err
	}
	program := filepath.Join(cache, s.pkg, s.binary)
	if lacks(program) == "" {
		return []string{program}, version, nil
	}
	libs := filepath.Join(cache, s.pkg+".libs")
	if err := fetchLibs(libs, s.pkg, 3); err != nil {
		return nil, "", err
	}
	var dirs []string
	for _, pattern := range []string{"usr/lib/*-linux-gnu*", "lib/*-linux-gnu*", "usr/lib/*-linux-gnu*/systemd"} {
		found, _ := filepath.Glob(filepath.Join(libs, "*", pattern))
		dirs = append(dirs, found...)
	}
	loader, err := interpreter(program)
	if err != nil {
		return nil, "", err
	}
	command = []string{loader, "--library-path", strings.Join(dirs, ":"), program}
	if out, err := exec.Command(loader, append([]string{"--list"}, command[1:]...)...).CombinedOutput(); err != nil {
		return nil, "", fmt.Errorf("%s: %w: %s", s.pkg, err, out)
	}
	return command, version, nil
}

// lacks says which libraries the system has not, as ldd words it.
func lacks(program string) string {
	out, _ := exec.Command("ldd", program).Output()
	var missing []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "not found") {
			missing = append(missing, strings.TrimSpace(line))
		}
	}
	return strings.Join(missing, ", ")
}

// fetchLibs fetches the libraries pkg depends on, and theirs, never libc.
func fetchLibs(dir, pkg string, depth int) error {
	out, err := exec.Command("apt-cache", "depends", "--important", pkg).Output()
	if err != nil {
		return fmt.Errorf("asking what %s depends on: %w", pkg, err)
	}
	for line := range strings.Lines(string(out)) {
		kind, name, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if !strings.HasSuffix(kind, "Depends") || !strings.HasPrefix(name, "lib") || name == "libc6" || name == "libgcc-s1" {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			continue
		}
		if _, err := fetch(dir, name); err != nil {
			return err
		}
		if depth > 1 {
			if err := fetchLibs(dir, name, depth-1); err != nil {
				return err
			}
		}
	}
	return nil
}

// fetch unpacks a Debian package into cache/pkg, if it is not there yet, and
// returns its version.
func fetch(cache, pkg string) (version string, err error) {
	tree := filepath.Join(cache, pkg)
	debs := filepath.Join(cache, pkg+"_*.deb")
	if _, err := os.Stat(tree); err != nil {
		if err := os.MkdirAll(cache, 0o755); err != nil {
			return "", err
		}
		if err := download(cache, pkg); err != nil {
			return "", err
		}
		deb, _ := filepath.Glob(debs)
		if len(deb) == 0 {
			return "", fmt.Errorf("downloading %s: no package came", pkg)
		}
		half := tree + ".part"
		if err := os.MkdirAll(half, 0o755); err != nil {
			return "", err
		}
		if out, err := exec.Command("dpkg-deb", "--extract", deb[len(deb)-1], half).CombinedOutput(); err != nil {
			return "", fmt.Errorf("unpacking %s: %w: %s", pkg, err, out)
		}
		if err := os.Rename(half, tree); err != nil {
			return "", err
		}
	}
	if deb, _ := filepath.Glob(debs); len(deb) > 0 {
		version, _, _ = strings.Cut(strings.TrimPrefix(filepath.Base(deb[len(deb)-1]), pkg+"_"), "_")
	}
	return strings.ReplaceAll(version, "%3a", ":"), nil
}

// download updates the package lists only if they do not have pkg.
func download(dir, pkg string) error {
	get := func(args ...string) ([]byte, error) {
		c := exec.Command("apt-get", append([]string{"-q", "-o", "APT::Sandbox::User=root"}, args...)...)
		c.Dir = dir
		return c.CombinedOutput()
	}
	if _, err := get("download", pkg); err == nil {
		return nil
	}
	get("update")
	if out, err := get("download", pkg); err != nil {
		return fmt.Errorf("downloading %s: %w: %s", pkg, err, out)
	}
	return nil
}

// interpreter is the program loader that an ELF program names.
func interpreter(program string) (string, error) {
	f, err := elf.Open(program)
	if err != nil {
		return "", err
	}
	defer f.Close()
	s := f.Section(".interp")
	if s == nil {
		return "", fmt.Errorf("%s: names no loader", program)
	}
	b, err := s.Data()
	return strings.TrimRight(string(b), "\x00"), err
}

# What a developer, CI and a packager call. `make check` is the whole truth; CI
# runs nothing that cannot be run by hand.

PREFIX   ?= /usr/local
SYSCONF  ?= /etc
FUZZTIME ?= 10s
SOAK     ?= 100000
SOAKTIME ?= 1h
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)

STATICCHECK = go run honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = go run golang.org/x/vuln/cmd/govulncheck@v1.6.0
MANPAGES    = $(wildcard cmd/*/*.[1-8])

.PHONY: all build try deps test race check soak lint fmt vet staticcheck man vuln fuzz cover bench bench-full bench-attack install dist clean

all: build

build:
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/ ./cmd/...

# Run the daemon on an example table for a moment, and use it.
try: build
	contrib/try

# What the tests need besides Go: installed by root on Debian, named to others.
deps:
	contrib/ci/deps check

test:
	go test ./...

race:
	CGO_ENABLED=1 go test -race -shuffle=on ./...

check: deps lint race

# Many instances of every kind, on the programs as they are shipped; no fewer than
# a fifth of SOAK where a kind takes longer than SOAKTIME.
soak:
	go test ./cmd/tcpmuxd -run '^Test(Soak|SpoofedSources)$$' -v -timeout 28m -soak $(SOAK) -soak-time $(SOAKTIME)

lint: fmt vet staticcheck man

fmt:
	@files=$$(gofmt -s -l cmd pkg contrib); test -z "$$files" || { echo "not as gofmt -s writes it: $$files"; exit 1; }

vet:
	go vet ./...
	GOARCH=arm64 CGO_ENABLED=0 go vet ./...
	GOOS=freebsd CGO_ENABLED=0 go vet ./...
	GOOS=darwin CGO_ENABLED=0 go vet ./...

staticcheck:
	$(STATICCHECK) -checks all ./...

# Which other manuals are installed here is not our pages' fault.
man:
	@out=$$(mandoc -T lint $(MANPAGES) 2>/dev/null | grep -v 'referenced manual not found'); test -z "$$out" || { echo "$$out"; exit 1; }

vuln:
	$(GOVULNCHECK) ./...

# Every fuzz target for FUZZTIME.
fuzz:
	contrib/ci/fuzz $(FUZZTIME)

cover:
	go test -coverprofile=bin/cover.out ./... && go tool cover -func=bin/cover.out | tail -n 1

# As root: the main table in two minutes, and everything with the bars.
bench: build
	go run ./contrib/bench -rounds 3 $(BENCHFLAGS)

bench-full: build
	go run ./contrib/bench -full $(BENCHFLAGS)

# As root, some minutes: floods, sieges and scans, and what an honest user notices.
bench-attack: build
	go run ./contrib/bench -attack -rounds 2 -sample 1500ms $(BENCHFLAGS)

# As root, who need not have Go: what make has built is installed, not built.
install:
	@test -x bin/tcpmuxd && test -x bin/tcpmuxctl && test -x bin/tcpmux || { echo "run make first"; exit 1; }
	install -d $(addprefix $(DESTDIR),$(PREFIX)/bin $(PREFIX)/sbin $(SYSCONF))
	install -m 755 bin/tcpmux $(DESTDIR)$(PREFIX)/bin
	install -m 755 bin/tcpmuxd bin/tcpmuxctl $(DESTDIR)$(PREFIX)/sbin
	for page in $(MANPAGES); do install -D -m 644 $$page $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/} || exit 1; done
	test -e $(DESTDIR)$(SYSCONF)/tcpmuxd.toml || install -m 644 etc/tcpmuxd.toml $(DESTDIR)$(SYSCONF)

dist:
	mkdir -p dist
	git archive --prefix=tcpmuxd-$(VERSION)/ HEAD | gzip -9n > dist/tcpmuxd-$(VERSION).tar.gz

clean:
	rm -rf bin dist

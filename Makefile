# forkd: make, make test, make lint, make install; see README. For GNU make and bmake.

PREFIX     = /usr/local
BINDIR     = $(PREFIX)/bin
LIBDIR     = $(PREFIX)/lib
INCLUDEDIR = $(PREFIX)/include
MANDIR     = $(PREFIX)/share/man

# -Os: forkd spends its time in the kernel, and is 8 KiB smaller.
CFLAGS   ?= -O2
CXXFLAGS ?= -Os
BATS     = bats

# What the code needs, apart from the flags that are the user's.
NEEDS = -std=c++20 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -fno-exceptions -fno-rtti
PAGES = forkd_run forkd_yield forkd_stop_fd forkd_worker_number

# Changes when compilers or flags do: what another compiler has made is built anew.
STAMP = build/flags

# What differs on macOS; give both when you build for another system than this one. The shell asks,
# since not every make can: the one that comes with macOS does not know !=.
# SHARED: a worker's code finds forkd_yield only when it is loaded. NO_PLT: nothing is left to be
# bound at its first call, in each worker anew.
SHARED = -shared `[ $$(uname) != Darwin ] || echo -undefined dynamic_lookup`
NO_PLT = `[ $$(uname) = Darwin ] || echo -fno-plt`

# Of LDFLAGS, those that are not for programs alone.
SO_LDFLAGS = `for flag in $(LDFLAGS); do case $$flag in -pie|-static|-static-pie) ;; *) echo "$$flag" ;; esac; done`

all: forkd forkd.h libforkd.a worker.so httpd.so

# Linked by the C compiler: there is no C++ library in it. -rdynamic: a worker's code finds
# forkd_yield in the program that loads it.
forkd: forkd.o
	$(CC) -rdynamic -pthread -o $@ forkd.o $(LDFLAGS) $(LDLIBS)
	@case ' $(LDFLAGS) ' in *' -static '*|*' -static-pie '*) \
	    echo 'forkd is static: it loads no shared objects, and runs commands only' ;; esac

# Without unwind tables an exception that leaves a worker ends at std::terminate, and not in the main
# that called forkd_run.
forkd.o: forkd.cpp $(STAMP)
	$(CXX) $(CPPFLAGS) $(NEEDS) -fvisibility=hidden $(NO_PLT) -fno-asynchronous-unwind-tables \
	    -fno-unwind-tables $(CXXFLAGS) -c -o $@ forkd.cpp

forkd.h: forkd.cpp
	sed -n '/^\/\* forkd\.h - /,/^\/\* end of forkd\.h/p' forkd.cpp >$@

libforkd.a: forkd.o
	rm -f $@
	$(AR) rcs $@ forkd.o

worker.so: test/examples/worker.cpp forkd.h $(STAMP)
	$(CXX) $(CPPFLAGS) $(NEEDS) $(CXXFLAGS) -I. -fPIC -c -o worker.o test/examples/worker.cpp
	$(CC) $(SHARED) -o $@ worker.o $(SO_LDFLAGS) $(LDLIBS)

httpd.so: test/examples/httpd.cpp forkd.h $(STAMP)
	$(CXX) $(CPPFLAGS) $(NEEDS) $(CXXFLAGS) -I. -fPIC -c -o httpd.o test/examples/httpd.cpp
	$(CC) $(SHARED) -o $@ httpd.o $(SO_LDFLAGS) $(LDLIBS)

$(STAMP): always
	@mkdir -p build
	@echo '$(CC) $(CXX) $(CPPFLAGS) $(CXXFLAGS) $(LDFLAGS) $(LDLIBS)' | cmp -s - $@ || \
	    echo '$(CC) $(CXX) $(CPPFLAGS) $(CXXFLAGS) $(LDFLAGS) $(LDLIBS)' >$@

always:

test: all
	@CC='$(CC)' CXX='$(CXX)' CPPFLAGS='$(CPPFLAGS)' LDFLAGS='$(LDFLAGS)' SHARED="$(SHARED)" \
	    MAKE='$(MAKE)' sh test/run.sh '$(BATS)'

# The long forms of some tests: make soak SOAK=60 SEED=7 SEEDS=5800
SOAK  = 60
SEED  = 1
SEEDS = 5800
soak: all
	CC='$(CC)' CXX='$(CXX)' CPPFLAGS='$(CPPFLAGS)' LDFLAGS='$(LDFLAGS)' SHARED="$(SHARED)" \
	    SOAK=$(SOAK) SEED=$(SEED) MOMENTS=100 INJECT='1 2 10' ROUNDS=1000 RELOADS=1000 \
	    SEEDS=$(SEEDS) \
	    $(BATS) -T test/chaos.bats test/container.bats test/races.bats test/simulate.bats

# How fast it is, beside a bare loop of fork, pause and waitpid; see test/bench/bench.sh.
bench: forkd libforkd.a forkd.h
	@CC='$(CC)' sh test/bench/bench.sh

# Root folders for containers in build/, see test/tools/image.sh.
image:
	@CC='$(CC)' CXX='$(CXX)' CXXFLAGS='$(CXXFLAGS)' sh test/tools/image.sh

# All that the tests run is compiled and linked for macOS and the BSDs.
ports:
	@sh test/tools/ports.sh

# The core of the tests on another processor, under an emulator: aarch64, armhf or s390x.
ARCH = aarch64
emulated:
	@sh test/tools/emulated.sh '$(ARCH)' '$(BATS)'

lint:
	sh test/tools/lint.sh

install: all
	mkdir -p "$(DESTDIR)$(BINDIR)" "$(DESTDIR)$(INCLUDEDIR)" "$(DESTDIR)$(LIBDIR)/pkgconfig" \
	    "$(DESTDIR)$(MANDIR)/man1" "$(DESTDIR)$(MANDIR)/man3"
	install -m 755 forkd "$(DESTDIR)$(BINDIR)"
	install -m 644 forkd.h "$(DESTDIR)$(INCLUDEDIR)"
	install -m 644 libforkd.a "$(DESTDIR)$(LIBDIR)"
	install -m 644 man/forkd.1 "$(DESTDIR)$(MANDIR)/man1"
	install -m 644 man/forkd.3 "$(DESTDIR)$(MANDIR)/man3"
	for page in $(PAGES); do \
	    ln -sf forkd.3 "$(DESTDIR)$(MANDIR)/man3/$$page.3" || exit 1; done
	printf '%s\n' 'prefix=$(PREFIX)' 'Name: forkd' 'Description: pre-forking process manager' \
	    "Version: `sed -n 's/.* version = "\(.*\)";/\1/p' forkd.cpp`" 'Cflags: -I$(INCLUDEDIR)' \
	    'Libs: -L$(LIBDIR) -lforkd -pthread' | sed 's|-\([IL]\)$(PREFIX)/|-\1$${prefix}/|' \
	    >"$(DESTDIR)$(LIBDIR)/pkgconfig/forkd.pc"

uninstall:
	rm -f "$(DESTDIR)$(BINDIR)/forkd" "$(DESTDIR)$(INCLUDEDIR)/forkd.h" \
	    "$(DESTDIR)$(LIBDIR)/libforkd.a" "$(DESTDIR)$(LIBDIR)/pkgconfig/forkd.pc" \
	    "$(DESTDIR)$(MANDIR)/man1/forkd.1" "$(DESTDIR)$(MANDIR)/man3/forkd.3"
	for page in $(PAGES); do rm -f "$(DESTDIR)$(MANDIR)/man3/$$page.3" || exit 1; done

clean:
	rm -rf forkd forkd.h forkd.o libforkd.a worker.o worker.so httpd.o httpd.so build

.PHONY: all always test soak bench image ports emulated lint install uninstall clean

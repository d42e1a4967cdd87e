# forkd: make, make test, make lint, make install; see README. For GNU make and bmake.

PREFIX   = /usr/local
CFLAGS   ?= -O2
CXXFLAGS ?= -O2
BATS     = bats

# What the code needs, kept apart from the flags that are the user's.
CXX_NEEDS = -std=c++20 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -fno-exceptions -fno-rtti \
            -fvisibility=hidden
# -rdynamic: a worker's code finds forkd_yield in the program that loads it.
LD_NEEDS  = -rdynamic -pthread

all: forkd forkd.h libforkd.a worker.so

# Linked by the C compiler: there is no C++ library in it.
forkd: forkd.o
	$(CC) $(LD_NEEDS) -o $@ forkd.o $(LDFLAGS) $(LDLIBS)

forkd.o: forkd.cpp
	$(CXX) $(CPPFLAGS) $(CXX_NEEDS) $(CXXFLAGS) -c -o $@ forkd.cpp

forkd.h: forkd.cpp
	sed -n '/^\/\* forkd\.h - /,/^\/\* end of forkd\.h/p' forkd.cpp >$@

libforkd.a: forkd.o
	rm -f $@ && $(AR) rcs $@ forkd.o

worker.so: test/worker.cpp forkd.h
	$(CXX) $(CPPFLAGS) -I. -fPIC $(CXXFLAGS) -c -o worker.o test/worker.cpp
	$(CC) -shared -o $@ worker.o $(LDFLAGS) $(LDLIBS)

// Code that cannot be loaded: it needs a symbol that nobody has.
extern "C" int a_symbol_that_nobody_has();
extern "C" int steady() { return a_symbol_that_nobody_has(); }

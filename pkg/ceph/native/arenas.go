package native

// #include <malloc.h>
import "C"

// arenas is how many heaps glibc may make for C's threads (mallopt(3), M_ARENA_MAX). By default it
// makes eight for each processor; librados and librbd free on other threads than they allocate on, so
// each of them stays filled with holes and the process grows with the calls that were ever under way at once.
const arenas = 2

// limitArenas holds for the whole process. Done twice it is as good as done once.
func limitArenas() { C.mallopt(C.M_ARENA_MAX, arenas) }

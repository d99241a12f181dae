/* Compiles the kernels once for each vector width, and chooses among them when they are first needed. */
#include <math.h>

#include "layers.h"

#define INLINE static inline __attribute__((always_inline))
#define JOIN(name, width) name##_##width
#define EXPAND(name, width) JOIN(name, width)
#define NAME(name) EXPAND(name, LANES)

#if defined(__x86_64__)
#include <immintrin.h>

#define LANES 16
#define TARGET __attribute__((target("avx512f,avx512vl,avx512dq,avx2,fma")))
#include "lanes.h"
#undef LANES
#undef TARGET
#define LANES 8
#define TARGET __attribute__((target("avx2,fma")))
#include "lanes.h"
#undef LANES
#undef TARGET
#endif

#define TARGET
#define LANES 4
#include "lanes.h"
#undef LANES
#define LANES 1
#include "lanes.h"
#undef LANES

static int widest = 16;
void effnet_use_lanes(int width) { widest = width; } /* for tests */

const struct lanes *const *supported_lanes(void) {
#if defined(__x86_64__)
    static const struct lanes *const all[] = {&kernels_16, &kernels_8, &kernels_4, &kernels_1};
    if (widest >= 16 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma"))
        return all;
    if (widest >= 8 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return all + 1;
    return widest >= 4 ? all + 2 : all + 3;
#else
    static const struct lanes *const all[] = {&kernels_4, &kernels_1};
    return widest >= 4 ? all : all + 1;
#endif
}

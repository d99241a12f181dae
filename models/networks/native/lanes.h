/* The kernels for vectors of LANES floats; lanes.c includes this file once for each width. */
typedef float NAME(vec) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t NAME(ints) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
#define VEC NAME(vec)
#define INTS NAME(ints)
#define LOAD(from) (*(const VEC *)(from))
#define STORE(to, value) (*(VEC *)(to) = (value))
#define ZERO ((VEC){0})

#include "depthwise.h"
#include "norm.h"
#include "pixels.h"
#include "products.h"
#include "rmsprop.h"

static const struct lanes NAME(kernels) = {LANES,           NAME(convolve),      NAME(transpose), NAME(correlate),
                                           NAME(moments),   NAME(normalize),     NAME(differentiate),
                                           NAME(project), NAME(reduce),        NAME(dot), NAME(add), NAME(sigmoids), NAME(rmsprop), NAME(scale),
                                           NAME(standardize)};

#undef VEC
#undef INTS
#undef LOAD
#undef STORE
#undef ZERO

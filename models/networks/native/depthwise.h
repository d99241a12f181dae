/* Depthwise convolution and its gradients. Kernel size and stride are constants in each inlined copy, so that all loops over
 * taps are unrolled and the accumulators stay in registers. */
#ifndef EFFNET_DEPTHWISE_H
#define EFFNET_DEPTHWISE_H
#define MOST_TAPS 7
#define UNROLL _Pragma("GCC unroll 32")

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

struct span {
    int64_t first, end;
};

/* Positions of the kernel, among `outputs`, at which all of it lies inside the axis. */
static inline struct span inside(int64_t inputs, int64_t outputs, int64_t kernel, int64_t stride, int64_t before) {
    const int64_t first = least(outputs, (before + stride - 1) / stride), last = inputs - kernel + before;
    return (struct span){first, last < 0 ? first : most(first, least(outputs, last / stride + 1))};
}

/* Calls one of the six combinations of constants. */
#define BY_SHAPE(function, d, ...)                                       \
    do {                                                                 \
        if ((d)->stride == 1) {                                          \
            if ((d)->kernel == 3) function(d, __VA_ARGS__, 3, 1);        \
            else if ((d)->kernel == 5) function(d, __VA_ARGS__, 5, 1);   \
            else function(d, __VA_ARGS__, 7, 1);                         \
        } else {                                                         \
            if ((d)->kernel == 3) function(d, __VA_ARGS__, 3, 2);        \
            else if ((d)->kernel == 5) function(d, __VA_ARGS__, 5, 2);   \
            else function(d, __VA_ARGS__, 7, 2);                         \
        }                                                                \
    } while (0)
#endif

/* ------------------------------------------------------------------ convolution */

#define TILE (LANES >= 16 ? 8 : 4) /* output pixels that share the loads of weights and of common inputs */

/* `tile` adjacent outputs whose kernels lie inside the row; `x` is the first input pixel of the first kernel row in use. */
INLINE TARGET void NAME(convolve_tile)(const struct depthwise *d, const float *x, const float *w, float *y, int64_t taps,
                                       const int tile, const int kernel, const int stride) {
    const int64_t channels = d->channels, row = d->width * channels;
    VEC sum[TILE], weights[MOST_TAPS];
    UNROLL for (int t = 0; t < tile; t++) sum[t] = ZERO;
    for (int64_t i = 0; i < taps; i++, x += row, w += kernel * channels) {
        UNROLL for (int k = 0; k < kernel; k++) weights[k] = LOAD(w + k * channels);
        UNROLL for (int j = 0; j < (tile - 1) * stride + kernel; j++) {
            const VEC pixel = LOAD(x + j * channels);
            UNROLL for (int t = 0; t < tile; t++) {
                const int k = j - t * stride;
                if (k >= 0 && k < kernel) sum[t] += pixel * weights[k];
            }
        }
    }
    UNROLL for (int t = 0; t < tile; t++) STORE(y + t * channels, sum[t]);
}

/* One output of which only taps [left, right) of a kernel row are inside. */
INLINE TARGET void NAME(convolve_edge)(const struct depthwise *d, const float *x, const float *w, float *y, int64_t taps,
                                       int64_t left, int64_t right, const int kernel) {
    const int64_t channels = d->channels, row = d->width * channels;
    VEC sum = ZERO;
    for (int64_t i = 0; i < taps; i++, x += row, w += kernel * channels)
        for (int64_t k = left; k < right; k++) sum += LOAD(x + k * channels) * LOAD(w + k * channels);
    STORE(y, sum);
}

INLINE TARGET void NAME(convolve_rows)(const struct depthwise *d, const float *x, const float *w, float *y, int64_t row,
                                       int64_t rows, int64_t first, int64_t end, const int kernel, const int stride) {
    const int64_t channels = d->channels, width = d->width;
    const struct span in = inside(width, d->out_width, kernel, stride, d->left);
    for (; row < rows; row++) {
        const int64_t start = row % d->out_height * stride - d->top, image = row / d->out_height;
        const int64_t above = most(0, -start), taps = most(0, least(kernel, d->height - start) - above);
        const float *source = x + ((image * d->height + start + above) * width - d->left) * channels;
        const float *weights = w + above * kernel * channels;
        float *target = y + row * d->out_width * channels;
        for (int64_t at = 0; at < d->out_width;) {
            const float *pixel = source + at * stride * channels;
            if (at < in.first || at >= in.end) {
                const int64_t column = at * stride - d->left;
                const int64_t left = most(0, -column), right = least(kernel, width - column);
                for (int64_t c = first; c < end; c += LANES)
                    NAME(convolve_edge)(d, pixel + c, weights + c, target + at * channels + c, taps, left, right, kernel);
                at++;
            } else if (in.end - at >= TILE) {
                for (int64_t c = first; c < end; c += LANES)
                    NAME(convolve_tile)(d, pixel + c, weights + c, target + at * channels + c, taps, TILE, kernel, stride);
                at += TILE;
            } else {
                for (int64_t c = first; c < end; c += LANES)
                    NAME(convolve_tile)(d, pixel + c, weights + c, target + at * channels + c, taps, 1, kernel, stride);
                at++;
            }
        }
    }
}

static TARGET void NAME(convolve)(const struct depthwise *d, const float *x, const float *w, float *y, int64_t row,
                                  int64_t rows, int64_t first, int64_t end) {
    BY_SHAPE(NAME(convolve_rows), d, x, w, y, row, rows, first, end);
}

/* ------------------------------------------------------------------ gradient of the input, stride 2 */

/* Input columns 2m - left and 2m + 1 - left receive from outputs m - j by the taps 2j and 2j + 1; the same holds for rows, of
 * which this tile has one, `taps` of whose kernel rows (every second one) are inside. `dy` is output pixel m of the first. */
INLINE TARGET void NAME(transpose_tile)(const struct depthwise *d, const float *dy, const float *w, float *dx, int64_t taps,
                                        const int tile, const int kernel) {
    const int64_t channels = d->channels;
    const int half = (kernel + 1) / 2;
    VEC even[TILE / 2], odd[TILE / 2], weights[MOST_TAPS + 1];
    UNROLL for (int t = 0; t < tile; t++) even[t] = odd[t] = ZERO;
    for (int64_t i = 0; i < taps; i++, dy -= d->out_width * channels, w += 2 * kernel * channels) {
        UNROLL for (int k = 0; k < kernel; k++) weights[k] = LOAD(w + k * channels);
        UNROLL for (int q = 1 - half; q < tile; q++) {
            const VEC pixel = LOAD(dy + q * channels);
            UNROLL for (int t = 0; t < tile; t++) {
                const int j = t - q;
                if (j < 0 || j >= half) continue;
                even[t] += pixel * weights[2 * j];
                if (2 * j + 1 < kernel) odd[t] += pixel * weights[2 * j + 1];
            }
        }
    }
    UNROLL for (int t = 0; t < tile; t++) {
        STORE(dx + 2 * t * channels, even[t]);
        STORE(dx + (2 * t + 1) * channels, odd[t]);
    }
}

/* One input column; `at` is its position in the padded row. */
INLINE TARGET void NAME(transpose_edge)(const struct depthwise *d, const float *dy, const float *w, float *dx, int64_t taps,
                                        int64_t at, const int kernel) {
    const int64_t channels = d->channels;
    VEC sum = ZERO;
    for (int64_t i = 0; i < taps; i++, dy -= d->out_width * channels, w += 2 * kernel * channels)
        for (int64_t k = at & 1; k < kernel; k += 2) {
            const int64_t column = (at - k) / 2;
            if (at >= k && column < d->out_width) sum += LOAD(dy + column * channels) * LOAD(w + k * channels);
        }
    STORE(dx, sum);
}

INLINE TARGET void NAME(transpose_rows)(const struct depthwise *d, const float *dy, const float *w, float *dx, int64_t row,
                                        int64_t rows, int64_t first, int64_t end, const int kernel) {
    const int64_t channels = d->channels, width = d->width, half = (kernel + 1) / 2;
    for (; row < rows; row++) {
        const int64_t at = row % d->height + d->top, image = row / d->height;
        /* Kernel rows at - 2 * out_row with out_row in [0, out_height), the smallest first. */
        const int64_t last = least(at / 2, d->out_height - 1), above = at - 2 * last;
        const int64_t taps = above >= kernel ? 0 : least(last + 1, (kernel - above + 1) / 2);
        const float *source = dy + (image * d->out_height + last) * d->out_width * channels;
        const float *weights = w + above * kernel * channels;
        float *target = dx + row * width * channels;
        for (int64_t column = 0; column < width;) {
            const int64_t padded = column + d->left, m = padded / 2;
            const int pairs = padded % 2 == 0 && m >= half - 1;
            const int64_t room = pairs ? least((width - column) / 2, d->out_width - m) : 0;
            float *to = target + column * channels;
            if (room >= TILE / 2) {
                for (int64_t c = first; c < end; c += LANES)
                    NAME(transpose_tile)(d, source + m * channels + c, weights + c, to + c, taps, TILE / 2, kernel);
                column += TILE;
            } else if (room >= 1) {
                for (int64_t c = first; c < end; c += LANES)
                    NAME(transpose_tile)(d, source + m * channels + c, weights + c, to + c, taps, 1, kernel);
                column += 2;
            } else {
                for (int64_t c = first; c < end; c += LANES)
                    NAME(transpose_edge)(d, source + c, weights + c, to + c, taps, padded, kernel);
                column++;
            }
        }
    }
}

static TARGET void NAME(transpose)(const struct depthwise *d, const float *dy, const float *w, float *dx, int64_t row,
                                   int64_t rows, int64_t first, int64_t end) {
    if (d->kernel == 3) NAME(transpose_rows)(d, dy, w, dx, row, rows, first, end, 3);
    else if (d->kernel == 5) NAME(transpose_rows)(d, dy, w, dx, row, rows, first, end, 5);
    else NAME(transpose_rows)(d, dy, w, dx, row, rows, first, end, 7);
}

/* ------------------------------------------------------------------ gradient of the weights */

#define BLOCK_PIXELS 128 /* of output between two stores of the sums: what the level 1 cache holds of one vector's channels */
#define STEP 4           /* output pixels that share the loads of common inputs */

/* Adds one output pixel to the sums of a kernel row; `column` is the input column of its first tap. */
INLINE TARGET void NAME(correlate_edge)(VEC *sum, const float *x, const float *dy, int64_t channels, int64_t column,
                                        int64_t width, const int kernel) {
    const VEC gradient = LOAD(dy);
    UNROLL for (int k = 0; k < kernel; k++)
        if (column + k >= 0 && column + k < width) sum[k] += gradient * LOAD(x + k * channels);
}

/* Sums of one kernel row over output rows [row, rows) for one vector of channels. */
INLINE TARGET void NAME(correlate_block)(const struct depthwise *d, const float *x, const float *dy, float *dw, int64_t row,
                                         int64_t rows, struct span in, int64_t kernel_row, const int kernel,
                                         const int stride) {
    const int64_t channels = d->channels, width = d->width;
    VEC sum[2][MOST_TAPS]; /* two of each tap, so that additions need not wait for each other */
    UNROLL for (int k = 0; k < kernel; k++) sum[0][k] = sum[1][k] = ZERO;
    for (; row < rows; row++) {
        const int64_t source_row = row % d->out_height * stride - d->top + kernel_row;
        if (source_row < 0 || source_row >= d->height) continue;
        const float *source = x + ((row / d->out_height * d->height + source_row) * width - d->left) * channels;
        const float *gradient = dy + row * d->out_width * channels;
        int64_t at = 0;
        for (; at < in.first; at++, gradient += channels, source += stride * channels)
            NAME(correlate_edge)(sum[0], source, gradient, channels, at * stride - d->left, width, kernel);
        for (; at + STEP <= in.end; at += STEP, gradient += STEP * channels, source += STEP * stride * channels) {
            VEC gradients[STEP];
            UNROLL for (int t = 0; t < STEP; t++) gradients[t] = LOAD(gradient + t * channels);
            UNROLL for (int j = 0; j < (STEP - 1) * stride + kernel; j++) {
                const VEC pixel = LOAD(source + j * channels);
                UNROLL for (int t = 0; t < STEP; t++) {
                    const int k = j - t * stride;
                    if (k >= 0 && k < kernel) sum[t & 1][k] += gradients[t] * pixel;
                }
            }
        }
        for (; at < d->out_width; at++, gradient += channels, source += stride * channels)
            NAME(correlate_edge)(sum[0], source, gradient, channels, at * stride - d->left, width, kernel);
    }
    UNROLL for (int k = 0; k < kernel; k++) {
        float *to = dw + (kernel_row * kernel + k) * channels;
        STORE(to, LOAD(to) + (sum[0][k] + sum[1][k]));
    }
}

INLINE TARGET void NAME(correlate_rows)(const struct depthwise *d, const float *x, const float *dy, float *dw, int64_t row,
                                        int64_t rows, int64_t first, int64_t end, const int kernel, const int stride) {
    const int64_t block = most(1, BLOCK_PIXELS / d->out_width);
    const struct span in = inside(d->width, d->out_width, kernel, stride, d->left);
    for (; row < rows; row += block)
        for (int64_t c = first; c < end; c += LANES)
            for (int kernel_row = 0; kernel_row < kernel; kernel_row++)
                NAME(correlate_block)(d, x + c, dy + c, dw + c, row, least(rows, row + block), in, kernel_row, kernel,
                                      stride);
}

static TARGET void NAME(correlate)(const struct depthwise *d, const float *x, const float *dy, float *dw, int64_t row,
                                   int64_t rows, int64_t first, int64_t end) {
    BY_SHAPE(NAME(correlate_rows), d, x, dy, dw, row, rows, first, end);
}

#undef TILE
#undef STEP
#undef BLOCK_PIXELS

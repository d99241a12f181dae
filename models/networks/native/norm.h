/* Batch norm with its activation, and the two passes of squeeze-and-excitation over pixels. */

#if LANES == 16
#define LEAST(bound, x) ((VEC)_mm512_min_ps((__m512)(bound), (__m512)(x))) /* x if it is not a number */
#define MOST(bound, x) ((VEC)_mm512_max_ps((__m512)(bound), (__m512)(x)))
#define ROUGH_INVERSE(x) ((VEC)_mm512_rcp14_ps((__m512)(x)))
#elif LANES == 8
#define LEAST(bound, x) ((VEC)_mm256_min_ps((__m256)(bound), (__m256)(x)))
#define MOST(bound, x) ((VEC)_mm256_max_ps((__m256)(bound), (__m256)(x)))
#define ROUGH_INVERSE(x) ((VEC)_mm256_rcp_ps((__m256)(x)))
#else
#define LEAST(bound, x) CHOOSE((x) > (bound), bound, x)
#define MOST(bound, x) CHOOSE((x) < (bound), bound, x)
#endif
#define CHOOSE(condition, yes, no) ((VEC)(((condition) & (INTS)(yes)) | (~(condition) & (INTS)(no))))

/* 1 / x to about 2e-7 of its value: one step of Newton's method where there is a rough estimate to start from. */
INLINE TARGET VEC NAME(inverse)(VEC x) {
#ifdef ROUGH_INVERSE
    const VEC rough = ROUGH_INVERSE(x);
    return rough * (2.0f - x * rough);
#else
    return 1.0f / x;
#endif
}

/* 1 / (1 + 2^t) with t = -z * log2(e) = n + f: 2^f is a polynomial with minimal relative error (7e-08) on [-1/2, 1/2]. */
INLINE TARGET VEC NAME(sigmoid)(VEC z) {
    const VEC lowest = ZERO - 126.0f, highest = ZERO + 126.0f;
    VEC t = z * -1.44269504088896341f;
    t = LEAST(highest, t);
    t = MOST(lowest, t);
    const VEC shifted = t + 12582912.0f; /* 1.5 * 2^23: the sum is rounded to an integer, in its last bits */
    const VEC f = t - (shifted - 12582912.0f);
    VEC power = f * 0.00132764714f + 0.00967554157f;
    power = power * f + 0.0555071328f;
    power = power * f + 0.240221197f;
    power = power * f + 0.693146967f;
    power = power * f + 1.00000007f;
    return NAME(inverse)(1.0f + (VEC)((INTS)power + ((INTS)shifted << 23)));
}

static TARGET void NAME(sigmoids)(float *x, int64_t size) {
    int64_t i = 0;
    for (; i + LANES <= size; i += LANES) STORE(x + i, NAME(sigmoid)(LOAD(x + i)));
    for (; i < size; i++) x[i] = 1.0f / (1.0f + expf(-x[i]));
}

/* Of `columns` vectors of channels; `step` rows have sums of their own, so that additions need not wait for each other. */
INLINE TARGET void NAME(moments_of)(const float *x, int64_t rows, int64_t channels, float *mean, float *squares,
                                    const int columns, const int step) {
    VEC sum[8], center[4];
    int64_t row = 0;
    UNROLL for (int i = 0; i < columns * step; i++) sum[i] = ZERO;
    for (; row + step <= rows; row += step)
        UNROLL for (int i = 0; i < columns * step; i++)
            sum[i] += LOAD(x + (row + i / columns) * channels + i % columns * LANES);
    for (; row < rows; row++)
        UNROLL for (int i = 0; i < columns; i++) sum[i] += LOAD(x + row * channels + i * LANES);
    UNROLL for (int i = 0; i < columns; i++) {
        center[i] = sum[i];
        UNROLL for (int k = 1; k < step; k++) center[i] += sum[k * columns + i];
        center[i] *= 1.0f / (float)rows;
        STORE(mean + i * LANES, center[i]);
    }
    UNROLL for (int i = 0; i < columns * step; i++) sum[i] = ZERO;
    for (row = 0; row + step <= rows; row += step) /* the pixels are in the cache by now */
        UNROLL for (int i = 0; i < columns * step; i++) {
            const VEC d = LOAD(x + (row + i / columns) * channels + i % columns * LANES) - center[i % columns];
            sum[i] += d * d;
        }
    for (; row < rows; row++)
        UNROLL for (int i = 0; i < columns; i++) {
            const VEC d = LOAD(x + row * channels + i * LANES) - center[i];
            sum[i] += d * d;
        }
    UNROLL for (int i = 0; i < columns; i++) {
        UNROLL for (int k = 1; k < step; k++) sum[i] += sum[k * columns + i];
        STORE(squares + i * LANES, sum[i]);
    }
}

static TARGET void NAME(moments)(const float *x, int64_t rows, int64_t channels, float *mean, float *squares,
                                 int64_t first, int64_t end) {
    int64_t c = first;
    for (; c + 4 * LANES <= end; c += 4 * LANES) NAME(moments_of)(x + c, rows, channels, mean + c, squares + c, 4, 2);
    for (; c < end; c += LANES) NAME(moments_of)(x + c, rows, channels, mean + c, squares + c, 1, 8);
}

INLINE TARGET void NAME(normalize_as)(const struct norm *n, const float *x, const float *scale, const float *shift,
                                      const float *keep, const float *residual, float *y, int64_t row, int64_t rows,
                                      int64_t first, int64_t end, const int activation) {
    for (; row < rows; row++) {
        const int64_t at = row * n->channels;
        const float kept = keep ? keep[row / n->image_pixels] : 1.0f;
        for (int64_t c = first; c < end; c += LANES) {
            VEC z = LOAD(x + at + c) * LOAD(scale + c) + LOAD(shift + c);
            if (activation == 1) z = z * NAME(sigmoid)(z);
            if (activation == 2) {
                z = MOST(ZERO, z);
                z = LEAST(ZERO + 6.0f, z);
            }
            if (activation == 0 && keep) z = z * kept;
            if (activation == 0 && residual) z = z + LOAD(residual + at + c);
            STORE(y + at + c, z);
        }
    }
}

static TARGET void NAME(normalize)(const struct norm *n, const float *x, const float *scale, const float *shift,
                                   const float *keep, const float *residual, float *y, int64_t row, int64_t rows,
                                   int64_t first, int64_t end) {
    if (n->activation == 1) NAME(normalize_as)(n, x, scale, shift, NULL, NULL, y, row, rows, first, end, 1);
    else if (n->activation == 2) NAME(normalize_as)(n, x, scale, shift, NULL, NULL, y, row, rows, first, end, 2);
    else NAME(normalize_as)(n, x, scale, shift, keep, residual, y, row, rows, first, end, 0);
}

/* Of `columns` vectors of channels. */
INLINE TARGET void NAME(differentiate_of)(const struct norm *n, const float *x, const float *dy, const float *scale,
                                          const float *shift, const float *mean, const float *keep, float *dz, float *sum,
                                          float *product, int64_t row, int64_t rows, const int activation,
                                          const int columns) {
    const int64_t channels = n->channels;
    VEC sums[2], products[2], scales[2], shifts[2], means[2];
    UNROLL for (int i = 0; i < columns; i++) {
        sums[i] = products[i] = ZERO;
        scales[i] = LOAD(scale + i * LANES);
        shifts[i] = LOAD(shift + i * LANES);
        means[i] = LOAD(mean + i * LANES);
    }
    for (; row < rows; row++) {
        const int64_t at = row * channels;
        const float kept = keep ? keep[row / n->image_pixels] : 1.0f;
        UNROLL for (int i = 0; i < columns; i++) {
            const VEC value = LOAD(x + at + i * LANES), z = value * scales[i] + shifts[i];
            VEC gradient = LOAD(dy + at + i * LANES);
            if (activation == 1) {
                const VEC s = NAME(sigmoid)(z);
                gradient = gradient * (s * (1.0f + z * (1.0f - s)));
            }
            if (activation == 2) gradient = CHOOSE((z > ZERO) & (z < ZERO + 6.0f), gradient, ZERO);
            if (activation == 0 && keep) gradient = gradient * kept;
            if (activation != 0 || keep) STORE(dz + at + i * LANES, gradient);
            sums[i] += gradient;
            products[i] += gradient * (value - means[i]);
        }
    }
    UNROLL for (int i = 0; i < columns; i++) {
        STORE(sum + i * LANES, sums[i]);
        STORE(product + i * LANES, products[i]);
    }
}

INLINE TARGET void NAME(differentiate_as)(const struct norm *n, const float *x, const float *dy, const float *scale,
                                          const float *shift, const float *mean, const float *keep, float *dz, float *sum,
                                          float *product, int64_t row, int64_t rows, int64_t first, int64_t end,
                                          const int activation) {
    int64_t c = first;
    for (; c + 2 * LANES <= end; c += 2 * LANES)
        NAME(differentiate_of)(n, x + c, dy + c, scale + c, shift + c, mean + c, keep, dz + c, sum + c, product + c, row,
                               rows, activation, 2);
    for (; c < end; c += LANES)
        NAME(differentiate_of)(n, x + c, dy + c, scale + c, shift + c, mean + c, keep, dz + c, sum + c, product + c, row,
                               rows, activation, 1);
}

static TARGET void NAME(differentiate)(const struct norm *n, const float *x, const float *dy, const float *scale,
                                       const float *shift, const float *mean, const float *keep, float *dz, float *sum,
                                       float *product, int64_t row, int64_t rows, int64_t first, int64_t end) {
    if (n->activation == 1)
        NAME(differentiate_as)(n, x, dy, scale, shift, mean, NULL, dz, sum, product, row, rows, first, end, 1);
    else if (n->activation == 2)
        NAME(differentiate_as)(n, x, dy, scale, shift, mean, NULL, dz, sum, product, row, rows, first, end, 2);
    else
        NAME(differentiate_as)(n, x, dy, scale, shift, mean, keep, dz, sum, product, row, rows, first, end, 0);
}

static TARGET void NAME(project)(const float *x, const float *dz, const float *scale, const float *mean,
                                 const float *offset, const float *slope, float *dx, int64_t rows, int64_t channels,
                                 int64_t first, int64_t end) {
    for (int64_t row = 0; row < rows; row++) {
        const int64_t at = row * channels;
        for (int64_t c = first; c < end; c += LANES)
            STORE(dx + at + c, LOAD(scale + c) * LOAD(dz + at + c) - LOAD(offset + c) -
                                   LOAD(slope + c) * (LOAD(x + at + c) - LOAD(mean + c)));
    }
}

INLINE TARGET void NAME(reduce_rows)(const float *x, const float *dy, float *sum, const int rows, int64_t channels,
                                     int64_t first, int64_t end) {
    for (int64_t c = first; c < end; c += LANES) {
        VEC total = ZERO; /* of a few rows, so that fewer roundings follow each other */
        UNROLL for (int row = 0; row < rows; row++) {
            if (dy) total += LOAD(x + row * channels + c) * LOAD(dy + row * channels + c);
            else total += LOAD(x + row * channels + c);
        }
        STORE(sum + c, LOAD(sum + c) + total);
    }
}

static TARGET void NAME(reduce)(const float *x, const float *dy, float factor, float *sum, int64_t rows, int64_t channels,
                                int64_t first, int64_t end) {
    int64_t row = 0;
    for (int64_t c = first; c < end; c += LANES) STORE(sum + c, ZERO);
    for (; row + 8 <= rows; row += 8) {
        const int64_t at = row * channels;
        if (dy) NAME(reduce_rows)(x + at, dy + at, sum, 8, channels, first, end);
        else NAME(reduce_rows)(x + at, NULL, sum, 8, channels, first, end);
    }
    for (; row < rows; row++)
        NAME(reduce_rows)(x + row * channels, dy ? dy + row * channels : NULL, sum, 1, channels, first, end);
    for (int64_t c = first; c < end; c += LANES) STORE(sum + c, LOAD(sum + c) * factor);
}

static TARGET void NAME(scale)(const float *x, const float *scale, const float *shift, float *y, int64_t rows,
                               int64_t channels, int64_t first, int64_t end) {
    for (int64_t row = 0; row < rows; row++) {
        const int64_t at = row * channels;
        if (shift)
            for (int64_t c = first; c < end; c += LANES)
                STORE(y + at + c, LOAD(x + at + c) * LOAD(scale + c) + LOAD(shift + c));
        else
            for (int64_t c = first; c < end; c += LANES) STORE(y + at + c, LOAD(x + at + c) * LOAD(scale + c));
    }
}

#undef CHOOSE
#undef LEAST
#undef MOST
#undef ROUGH_INVERSE

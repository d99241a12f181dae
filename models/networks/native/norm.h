/* Batch norm with its activation, and the two passes of squeeze-and-excitation over pixels. */

#define CHOOSE(condition, yes, no) ((VEC)(((condition) & (INTS)(yes)) | (~(condition) & (INTS)(no))))

/* 1 / (1 + exp(-z)). exp by Cephes' expf: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2], about 1e-7 relative. */
INLINE TARGET VEC NAME(sigmoid)(VEC z) {
    const VEC low = ZERO - 87.0f, high = ZERO + 87.0f;
    VEC x = ZERO - z;
    x = CHOOSE(x > high, high, x);
    x = CHOOSE(x < low, low, x);
    const VEC shifted = x * 1.44269504088896341f + 12582912.0f; /* 1.5 * 2^23: the sum is rounded to an integer */
    const INTS exponent = (INTS)shifted - (INTS)(ZERO + 12582912.0f);
    const VEC n = shifted - 12582912.0f;
    x = x - n * 0.693359375f;
    x = x + n * 2.12194440e-4f;
    VEC p = x * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * x + 8.3334519073e-3f;
    p = p * x + 4.1665795894e-2f;
    p = p * x + 1.6666665459e-1f;
    p = p * x + 5.0000001201e-1f;
    p = p * (x * x) + x + 1.0f;
    return 1.0f / (1.0f + (VEC)((INTS)p + (exponent << 23)));
}

static TARGET void NAME(moments)(const float *x, int64_t rows, int64_t channels, float *mean, float *squares,
                                 int64_t first, int64_t end) {
    for (int64_t c = first; c < end; c += LANES) {
        STORE(mean + c, ZERO);
        STORE(squares + c, ZERO);
    }
    int64_t row = 0;
    for (; row + 4 <= rows; row += 4) {
        const float *from = x + row * channels;
        for (int64_t c = first; c < end; c += LANES)
            STORE(mean + c, LOAD(mean + c) + ((LOAD(from + c) + LOAD(from + channels + c)) +
                                              (LOAD(from + 2 * channels + c) + LOAD(from + 3 * channels + c))));
    }
    for (; row < rows; row++)
        for (int64_t c = first; c < end; c += LANES) STORE(mean + c, LOAD(mean + c) + LOAD(x + row * channels + c));
    for (int64_t c = first; c < end; c += LANES) STORE(mean + c, LOAD(mean + c) * (1.0f / (float)rows));
    for (row = 0; row + 2 <= rows; row += 2) { /* the pixels are in the cache by now */
        const float *from = x + row * channels;
        for (int64_t c = first; c < end; c += LANES) {
            const VEC center = LOAD(mean + c), a = LOAD(from + c) - center, b = LOAD(from + channels + c) - center;
            STORE(squares + c, LOAD(squares + c) + (a * a + b * b));
        }
    }
    for (; row < rows; row++)
        for (int64_t c = first; c < end; c += LANES) {
            const VEC a = LOAD(x + row * channels + c) - LOAD(mean + c);
            STORE(squares + c, LOAD(squares + c) + a * a);
        }
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
                z = CHOOSE(z < ZERO, ZERO, z);
                z = CHOOSE(z > ZERO + 6.0f, ZERO + 6.0f, z);
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

INLINE TARGET void NAME(differentiate_as)(const struct norm *n, const float *x, const float *dy, const float *scale,
                                          const float *shift, const float *mean, const float *keep, float *dz, float *sum,
                                          float *product, int64_t row, int64_t rows, int64_t first, int64_t end,
                                          const int activation) {
    for (int64_t c = first; c < end; c += LANES) {
        STORE(sum + c, ZERO);
        STORE(product + c, ZERO);
    }
    for (; row < rows; row++) {
        const int64_t at = row * n->channels;
        const float kept = keep ? keep[row / n->image_pixels] : 1.0f;
        for (int64_t c = first; c < end; c += LANES) {
            const VEC value = LOAD(x + at + c), z = value * LOAD(scale + c) + LOAD(shift + c);
            VEC gradient = LOAD(dy + at + c);
            if (activation == 1) {
                const VEC s = NAME(sigmoid)(z);
                gradient = gradient * (s * (1.0f + z * (1.0f - s)));
            }
            if (activation == 2) gradient = CHOOSE((z > ZERO) & (z < ZERO + 6.0f), gradient, ZERO);
            if (activation == 0 && keep) gradient = gradient * kept;
            if (activation != 0 || keep) STORE(dz + at + c, gradient);
            STORE(sum + c, LOAD(sum + c) + gradient);
            STORE(product + c, LOAD(product + c) + gradient * (value - LOAD(mean + c)));
        }
    }
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

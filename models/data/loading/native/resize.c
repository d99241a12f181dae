/* Antialiased bicubic resize with Pillow's coefficients: horizontal pass, rounding to uint8, vertical pass.
 *
 * Pillow computes in 22-bit fixed point (libImaging/Resample.c); here the weights have 16 bits, so that one multiply
 * instruction takes two taps, with as many bits behind the point as the largest weight leaves. On photographs about one
 * value in a thousand then differs by one: 75 dB and more; tests/unit/models/data/loading/test_native.py bounds it on noise.
 * The horizontal pass takes two rows at once and stores them interleaved, which is what the vertical pass multiplies.
 */
#include "resize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double bicubic(double x) { /* Resample.c: bicubic_filter, a = -0.5 */
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
    return 0.0;
}

static int taps_of(int inputs, int outputs) { /* an upper bound */
    const double scale = (double)inputs / outputs;
    return (int)ceil(2.0 * (scale < 1.0 ? 1.0 : scale)) * 2 + 1;
}

/* Source: Resample.c: precompute_coeffs. `real` has room for taps_of() doubles an output; returns the taps in use. */
static int real_weights(int inputs, int outputs, int room, double *real, int32_t *first, int32_t *count) {
    const double scale = (double)inputs / outputs, filter = scale < 1.0 ? 1.0 : scale, support = 2.0 * filter;
    int most = 0;
    for (int i = 0; i < outputs; i++, real += room) {
        const double centre = (i + 0.5) * scale;
        int low = (int)(centre - support + 0.5), high = (int)(centre + support + 0.5);
        if (low < 0) low = 0;
        if (high > inputs) high = inputs;
        double sum = 0.0;
        for (int x = low; x < high; x++) sum += real[x - low] = bicubic((x - centre + 0.5) * (1.0 / filter));
        for (int x = low; x < high; x++) real[x - low] /= sum;
        first[i] = low;
        count[i] = high - low;
        if (count[i] > most) most = count[i];
    }
    return most;
}

/* Fixed point. Each weight is the step of the rounded running sum: so the sum is exactly one, and the rounding errors of
 * neighbours cancel. A window may have to begin earlier than its first tap: at an even row, since the vertical pass takes rows by
 * pairs (`even`), or so that it ends within the inputs. */
static void fix_weights(struct axis *axis, int inputs, int outputs, int room, const double *real, const int32_t *count,
                        int even) {
    double largest = 0.0;
    for (int i = 0; i < outputs; i++)
        for (int k = 0; k < count[i]; k++) largest = fmax(largest, fabs(real[(size_t)i * room + k]));
    for (axis->shift = 22; largest * (1 << axis->shift) > 32766.0; axis->shift--) {}
    memset(axis->weights, 0, sizeof(int16_t) * 2 * (size_t)axis->pairs * (size_t)outputs);
    for (int i = 0; i < outputs; i++) {
        const int beyond = axis->first[i] + 2 * axis->pairs - inputs, excess = beyond < 0 ? 0 : beyond;
        const int earlier = even ? axis->first[i] & 1 : excess < axis->first[i] ? excess : axis->first[i];
        int16_t *weights = axis->weights + 2 * (size_t)axis->pairs * (size_t)i + earlier;
        double sum = 0.0;
        int before = 0;
        for (int k = 0; k < count[i]; k++) {
            sum += real[(size_t)i * room + k];
            const int now = (int)floor(sum * (1 << axis->shift) + 0.5);
            weights[k] = (int16_t)(now - before);
            before = now;
        }
        axis->first[i] -= earlier;
    }
}

static void mirror(struct axis *axis, int outputs) {
    for (int i = 0, j = outputs - 1; i < j; i++, j--) {
        const int32_t first = axis->first[i];
        axis->first[i] = axis->first[j];
        axis->first[j] = first;
        int16_t *a = axis->weights + 2 * axis->pairs * i, *b = axis->weights + 2 * axis->pairs * j;
        for (int k = 0; k < 2 * axis->pairs; k++) {
            const int16_t weight = a[k];
            a[k] = b[k];
            b[k] = weight;
        }
    }
}

static int most_bits = 512;
void effnet_use_vectors(int bits) { most_bits = bits; }

static int vector_bits(void) {
#if defined(__x86_64__) && defined(__GNUC__)
    if (most_bits >= 512 && supports_avx512()) return 512;
    if (most_bits >= 256 && __builtin_cpu_supports("avx2")) return 256;
#endif
    return 0;
}

static void *take(uint8_t **at, size_t bytes) {
    void *taken = *at;
    *at += (bytes + 63) & ~(size_t)63;
    return taken;
}

int resizer_begin(struct resizer *r, int width, int height, int side, int flip, uint8_t *out) {
    const int padded = (side + 3) & ~3; /* the horizontal pass makes four outputs at a time */
    const int room_across = taps_of(width, side), room_down = taps_of(height, side);
    const int pairs_across = room_across / 2 + 1, pairs_down = room_down / 2 + 2;
    const int room = room_across > room_down ? room_across : room_down;
    r->side = side;
    r->stride = padded * 6 + 64;
    r->height = height;
    r->done_pairs = r->done_rows = 0;
    r->ring_pairs = pairs_down;
    r->out = out;
    const size_t sizes[] = {
        sizeof(double) * (size_t)room * (size_t)side, sizeof(int32_t) * (size_t)side, sizeof(int32_t) * (size_t)padded,
        sizeof(int32_t) * (size_t)padded, sizeof(int16_t) * 2 * (size_t)pairs_across * (size_t)padded,
        sizeof(int16_t) * 2 * (size_t)pairs_down * (size_t)padded, (size_t)r->stride * (size_t)r->ring_pairs,
        sizeof(uint8_t *) * (size_t)pairs_down, gather_bytes(side, pairs_across),
    };
    size_t bytes = 64;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) bytes += sizes[i] + 64;
    if (bytes > r->memory_bytes) {
        free(r->memory);
        r->memory = calloc(1, bytes);
        r->memory_bytes = r->memory ? bytes : 0;
        if (!r->memory) return 0;
    }
    uint8_t *at = (uint8_t *)(((uintptr_t)r->memory + 63) & ~(uintptr_t)63);
    double *real = take(&at, sizes[0]);
    int32_t *count = take(&at, sizes[1]);
    r->across.first = take(&at, sizes[2]);
    r->down.first = take(&at, sizes[3]);
    r->across.weights = take(&at, sizes[4]);
    r->down.weights = take(&at, sizes[5]);
    r->ring = take(&at, sizes[6]);
    r->window = take(&at, sizes[7]);
    r->gather = take(&at, sizes[8]);

    r->across.pairs = (real_weights(width, side, room, real, r->across.first, count) + 1) / 2;
    fix_weights(&r->across, width, side, room, real, count, 0);
    if (flip) mirror(&r->across, side);
    for (int i = side; i < padded; i++) r->across.first[i] = r->across.first[side - 1];
    memset(r->across.weights + 2 * (size_t)r->across.pairs * (size_t)side, 0,
           sizeof(int16_t) * 2 * (size_t)r->across.pairs * (size_t)(padded - side));
    r->vector_bits = vector_bits();
    if (r->vector_bits == 512 && !prepare_gather(r)) r->vector_bits = 256;
    r->down.pairs = real_weights(height, side, room, real, r->down.first, count) / 2 + 1;
    fix_weights(&r->down, height, side, room, real, count, 1);
    return 1;
}

void resizer_free(struct resizer *r) {
    free(r->memory);
    memset(r, 0, sizeof *r);
}

/* ------------------------------------------------------------------ plain C */

static inline uint8_t clip8(int32_t v) { return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v); }

static void across_plain(const struct resizer *r, const uint8_t *above, const uint8_t *below, uint8_t *to) {
    const int taps = 2 * r->across.pairs, shift = r->across.shift;
    const int16_t *weights = r->across.weights;
    for (int x = 0; x < r->side; x++, weights += taps, to += 6) {
        const uint8_t *a = above + 4 * (ptrdiff_t)r->across.first[x], *b = below + 4 * (ptrdiff_t)r->across.first[x];
        int32_t sums[8]; /* r g b x of above and of below: four at a time suit any vector unit */
        for (int c = 0; c < 8; c++) sums[c] = 1 << (shift - 1);
        for (int k = 0; k < taps; k++, a += 4, b += 4) {
            const int32_t weight = weights[k];
            for (int c = 0; c < 4; c++) sums[c] += weight * a[c];
            for (int c = 0; c < 4; c++) sums[4 + c] += weight * b[c];
        }
        for (int c = 0; c < 3; c++) to[2 * c] = clip8(sums[c] >> shift);
        for (int c = 0; c < 3; c++) to[2 * c + 1] = clip8(sums[4 + c] >> shift);
    }
}

static void down_plain(const struct resizer *r, const int16_t *weights, uint8_t *to) {
    enum { BLOCK = 96 };
    const int values = 3 * r->side;
    for (int start = 0; start < values; start += BLOCK) {
        const int n = values - start < BLOCK ? values - start : BLOCK;
        int32_t sums[BLOCK];
        for (int i = 0; i < BLOCK; i++) sums[i] = 1 << (r->down.shift - 1);
        for (int p = 0; p < r->down.pairs; p++) {
            const uint8_t *from = r->window[p] + 2 * start;
            const int32_t a = weights[2 * p], b = weights[2 * p + 1];
            for (int i = 0; i < n; i++) sums[i] += a * from[2 * i] + b * from[2 * i + 1];
        }
        for (int i = 0; i < n; i++) to[start + i] = clip8(sums[i] >> r->down.shift);
    }
}

/* ------------------------------------------------------------------ AVX2 */

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2")))
#define INLINE static inline __attribute__((always_inline))

/* One output pixel of both rows, before the shift: [r g b x of above | r g b x of below] as int32. */
INLINE AVX2 __m256i pixel_avx2(const uint8_t *a, const uint8_t *b, const int16_t *weights, int pairs, __m256i half) {
    const __m256i even = _mm256_setr_epi8(0, -1, 4, -1, 1, -1, 5, -1, 2, -1, 6, -1, 3, -1, 7, -1,
                                          0, -1, 4, -1, 1, -1, 5, -1, 2, -1, 6, -1, 3, -1, 7, -1);
    const __m256i odd = _mm256_setr_epi8(8, -1, 12, -1, 9, -1, 13, -1, 10, -1, 14, -1, 11, -1, 15, -1,
                                         8, -1, 12, -1, 9, -1, 13, -1, 10, -1, 14, -1, 11, -1, 15, -1);
    __m256i sum = half, other = _mm256_setzero_si256();
    for (int p = 0; p < pairs; p += 2) {
        const __m128i low = _mm_loadu_si128((const __m128i *)(a + 8 * p));
        const __m256i four = _mm256_inserti128_si256(_mm256_castsi128_si256(low), _mm_loadu_si128((const __m128i *)(b + 8 * p)), 1);
        int32_t pair;
        memcpy(&pair, weights + 2 * p, sizeof pair);
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_shuffle_epi8(four, even), _mm256_set1_epi32(pair)));
        if (p + 1 < pairs) {
            memcpy(&pair, weights + 2 * p + 2, sizeof pair);
            other = _mm256_add_epi32(other, _mm256_madd_epi16(_mm256_shuffle_epi8(four, odd), _mm256_set1_epi32(pair)));
        }
    }
    return _mm256_add_epi32(sum, other);
}

INLINE AVX2 void across_pairs(const struct resizer *r, const uint8_t *above, const uint8_t *below, uint8_t *to, int pairs) {
    const __m256i half = _mm256_set1_epi32(1 << (r->across.shift - 1));
    const __m128i shift = _mm_cvtsi32_si128(r->across.shift);
    const __m256i rgb = _mm256_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1,
                                         0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
    const int16_t *weights = r->across.weights;
    for (int x = 0; x < r->side; x += 4, to += 24) {
        __m256i four[4];
        for (int i = 0; i < 4; i++, weights += 2 * pairs) {
            const ptrdiff_t first = 4 * (ptrdiff_t)r->across.first[x + i];
            four[i] = _mm256_sra_epi32(pixel_avx2(above + first, below + first, weights, pairs, half), shift);
        }
        const __m256i bytes = _mm256_packus_epi16(_mm256_packs_epi32(four[0], four[1]), _mm256_packs_epi32(four[2], four[3]));
        const __m256i packed = _mm256_shuffle_epi8(bytes, rgb); /* [twelve values of above | twelve of below] */
        const __m128i a = _mm256_castsi256_si128(packed), b = _mm256_extracti128_si256(packed, 1);
        _mm_storeu_si128((__m128i *)to, _mm_unpacklo_epi8(a, b));
        _mm_storel_epi64((__m128i *)(to + 16), _mm_unpackhi_epi8(a, b));
    }
}

/* Known numbers of pairs are unrolled: 2 to 5 are what crops of 20 to 560 pixels need for a side of 224. */
static AVX2 void across_avx2(const struct resizer *r, const uint8_t *above, const uint8_t *below, uint8_t *to) {
    switch (r->across.pairs) {
        case 2: across_pairs(r, above, below, to, 2); break;
        case 3: across_pairs(r, above, below, to, 3); break;
        case 4: across_pairs(r, above, below, to, 4); break;
        case 5: across_pairs(r, above, below, to, 5); break;
        default: across_pairs(r, above, below, to, r->across.pairs); break;
    }
}

/* 32 values of an output row. */
INLINE AVX2 __m256i block_avx2(const struct resizer *r, const int16_t *weights, int start) {
    const __m256i half = _mm256_set1_epi32(1 << (r->down.shift - 1));
    const __m128i shift = _mm_cvtsi32_si128(r->down.shift);
    __m256i sums[4] = {half, half, half, half};
    for (int p = 0; p < r->down.pairs; p++) {
        int32_t pair;
        memcpy(&pair, weights + 2 * p, sizeof pair);
        const __m256i both = _mm256_set1_epi32(pair);
        const __m128i *from = (const __m128i *)(r->window[p] + 2 * start);
        for (int i = 0; i < 4; i++)
            sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128(from + i)), both));
    }
    for (int i = 0; i < 4; i++) sums[i] = _mm256_sra_epi32(sums[i], shift);
    const __m256i bytes = _mm256_packus_epi16(_mm256_packs_epi32(sums[0], sums[1]), _mm256_packs_epi32(sums[2], sums[3]));
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

static AVX2 void down_avx2(const struct resizer *r, const int16_t *weights, uint8_t *to) {
    const int values = 3 * r->side;
    int start = 0;
    for (; start + 32 <= values; start += 32)
        _mm256_storeu_si256((__m256i *)(to + start), block_avx2(r, weights, start));
    if (start < values) {
        uint8_t rest[32];
        _mm256_storeu_si256((__m256i *)rest, block_avx2(r, weights, start));
        memcpy(to + start, rest, (size_t)(values - start));
    }
}

#else
#define across_avx2 across_plain
#define down_avx2 down_plain
#endif

/* ------------------------------------------------------------------ both passes */

void resizer_take(struct resizer *r, const uint8_t *above, const uint8_t *below) {
    const int bits = r->vector_bits, last = (r->height - 1) / 2;
    uint8_t *slot = r->ring + (size_t)r->stride * (size_t)(r->done_pairs % r->ring_pairs);
    if (r->done_pairs > last || r->done_rows == r->side) return;
    if (r->done_pairs == last && r->height % 2) below = above; /* its weights are zero */
    (bits == 512 ? across_avx512 : bits == 256 ? across_avx2 : across_plain)(r, above, below, slot);
    r->done_pairs++;
    while (r->done_rows < r->side) {
        const int first = r->down.first[r->done_rows] / 2;
        const int end = first + r->down.pairs;
        if ((end > last + 1 ? last + 1 : end) > r->done_pairs) return;
        for (int p = 0; p < r->down.pairs; p++) { /* behind the last pair weights are zero: any will do */
            const int pair = first + p > last ? last : first + p;
            r->window[p] = r->ring + (size_t)r->stride * (size_t)(pair % r->ring_pairs);
        }
        const int16_t *weights = r->down.weights + 2 * (size_t)r->down.pairs * (size_t)r->done_rows;
        uint8_t *to = r->out + 3 * (size_t)r->side * (size_t)r->done_rows;
        (bits ? down_avx2 : down_plain)(r, weights, to);
        r->done_rows++;
    }
}

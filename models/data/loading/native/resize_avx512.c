/* The horizontal pass with AVX-512: one instruction gathers the inputs of four outputs, another multiplies four taps of each.
 *
 * That multiplication takes weights of 8 bits, so a weight is divided into 256 * high + low, which are summed separately:
 * the same integers as in the other versions, so the same bytes. */
#include "resize.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#include <string.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni")))
#define INLINE static inline __attribute__((always_inline))

enum { TAPS = 4, INPUTS = 16 }; /* of a multiplication; in the 64 bytes that it gathers from */
enum { LARGEST = 127 * 256 + 127 }; /* weight that can be divided */

int supports_avx512(void) {
    return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni");
}

INLINE int blocks_of(int pairs) { return (2 * pairs + TAPS - 1) / TAPS; }

size_t gather_bytes(int outputs, int pairs) {
    return 64 * (1 + 2 * (size_t)blocks_of(pairs)) * (size_t)((outputs + 3) / 4);
}

/* [outputs / 4][64 bytes of indices, then for each block of taps 64 high and 64 low bytes of weights], as [4 outputs][4 channels]
 * [4 taps]. Returns 0 if four outputs need inputs too far apart, or if a weight is too large. */
AVX512 int prepare_gather(struct resizer *r) {
    uint8_t of_output[64], of_tap[64], spread[64];
    for (int k = 0; k < 64; k++) {
        const int output = k / 16, channel = k / 4 % 4, tap = k % 4;
        of_output[k] = (uint8_t)(4 * output);
        of_tap[k] = (uint8_t)(4 * tap + channel);
        spread[k] = (uint8_t)(8 * output + 2 * tap);
    }
    const __m512i outputs = _mm512_loadu_si512(of_output), taps = _mm512_loadu_si512(of_tap);
    const __m512i places = _mm512_loadu_si512(spread);
    const int pairs = r->across.pairs, blocks = blocks_of(pairs);
    uint8_t *to = r->gather;
    for (int x = 0; x < r->side; x += 4) {
        const int32_t *first = r->across.first + x;
        const int32_t left = first[0] < first[3] ? first[0] : first[3];
        if ((first[0] < first[3] ? first[3] : first[0]) - left > INPUTS - TAPS) return 0;
        const __m128i bytes = _mm_slli_epi32(_mm_sub_epi32(_mm_loadu_si128((const __m128i *)first), _mm_set1_epi32(left)), 2);
        const __m512i starts = _mm512_permutexvar_epi8(outputs, _mm512_castsi128_si512(bytes));
        _mm512_storeu_si512(to, _mm512_add_epi8(starts, taps));
        to += 64;
        for (int block = 0; block < blocks; block++, to += 128) {
            int64_t rows[4];
            for (int i = 0; i < 4; i++)
                memcpy(rows + i, r->across.weights + 2 * (ptrdiff_t)pairs * (x + i) + TAPS * block, sizeof *rows);
            __m256i weights = _mm256_loadu_si256((const __m256i *)rows);
            if (2 * pairs - TAPS * block < TAPS) weights = _mm256_and_si256(weights, _mm256_set1_epi64x(0xFFFFFFFF));
            if (_mm256_cmpgt_epi16_mask(weights, _mm256_set1_epi16(LARGEST))) return 0;
            const __m256i high = _mm256_srai_epi16(_mm256_add_epi16(weights, _mm256_set1_epi16(128)), 8);
            _mm512_storeu_si512(to, _mm512_permutexvar_epi8(places, _mm512_castsi256_si512(high)));
            _mm512_storeu_si512(to + 64, _mm512_permutexvar_epi8(places, _mm512_castsi256_si512(weights)));
        }
    }
    return 1;
}

INLINE AVX512 void across_blocks(const struct resizer *r, const uint8_t *above, const uint8_t *below, uint8_t *to, int blocks) {
    uint8_t packed[64] = {0};
    for (int i = 0; i < 24; i++) packed[i] = (uint8_t)(16 * (i / 6) + 4 * (i % 2) + i % 6 / 2);
    const __m512i order = _mm512_loadu_si512(packed), half = _mm512_set1_epi32(1 << (r->across.shift - 1));
    const __m128i shift = _mm_cvtsi32_si128(r->across.shift);
    const uint8_t *table = r->gather;
    for (int x = 0; x < r->side; x += 4, to += 24) {
        const int32_t *first = r->across.first + x;
        const ptrdiff_t left = 4 * (ptrdiff_t)(first[0] < first[3] ? first[0] : first[3]);
        const __m512i index = _mm512_loadu_si512(table);
        __m512i high_a = _mm512_setzero_si512(), high_b = high_a, low_a = half, low_b = half;
        table += 64;
        for (int block = 0; block < blocks; block++, table += 128) {
            const __m512i high = _mm512_loadu_si512(table), low = _mm512_loadu_si512(table + 64);
            const ptrdiff_t at = left + 4 * TAPS * block;
            const __m512i a = _mm512_permutexvar_epi8(index, _mm512_loadu_si512(above + at));
            const __m512i b = _mm512_permutexvar_epi8(index, _mm512_loadu_si512(below + at));
            high_a = _mm512_dpbusd_epi32(high_a, a, high);
            high_b = _mm512_dpbusd_epi32(high_b, b, high);
            low_a = _mm512_dpbusd_epi32(low_a, a, low);
            low_b = _mm512_dpbusd_epi32(low_b, b, low);
        }
        const __m512i sum_a = _mm512_sra_epi32(_mm512_add_epi32(low_a, _mm512_slli_epi32(high_a, 8)), shift);
        const __m512i sum_b = _mm512_sra_epi32(_mm512_add_epi32(low_b, _mm512_slli_epi32(high_b, 8)), shift);
        const __m512i both = _mm512_packs_epi32(sum_a, sum_b);
        const __m512i bytes = _mm512_permutexvar_epi8(order, _mm512_packus_epi16(both, both));
        _mm256_storeu_si256((__m256i *)to, _mm512_castsi512_si256(bytes)); /* 24 bytes, and 8 that are overwritten */
    }
}

/* Known numbers of blocks are unrolled: one to three are what crops of 20 to 560 pixels need for a side of 224. */
AVX512 void across_avx512(const struct resizer *r, const uint8_t *above, const uint8_t *below, uint8_t *to) {
    switch (blocks_of(r->across.pairs)) {
        case 1: across_blocks(r, above, below, to, 1); break;
        case 2: across_blocks(r, above, below, to, 2); break;
        case 3: across_blocks(r, above, below, to, 3); break;
        default: across_blocks(r, above, below, to, blocks_of(r->across.pairs)); break;
    }
}
#else
int supports_avx512(void) { return 0; }
size_t gather_bytes(int outputs, int pairs) { return (void)outputs, (void)pairs, 0; }
int prepare_gather(struct resizer *r) { return (void)r, 0; }
void across_avx512(const struct resizer *r, const uint8_t *above, const uint8_t *below, uint8_t *to) {
    (void)r, (void)above, (void)below, (void)to;
}
#endif

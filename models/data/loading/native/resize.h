/* Antialiased bicubic resize of RGBX rows, two at a time as they are decoded, into one square RGB image. */
#ifndef EFFNET_RESIZE_H
#define EFFNET_RESIZE_H
#include <stddef.h>
#include <stdint.h>

enum { ROW_SLACK = 64 }; /* bytes that must be readable behind a row; their values do not matter */

struct axis { /* how the outputs of one direction are made of its inputs */
    int pairs; /* of taps, for each output */
    int shift; /* weights are fixed point with so many bits behind the point */
    int32_t *first; /* [outputs] first input */
    int16_t *weights; /* [outputs][pairs][2] */
};

struct resizer { /* zero it before the first use; its memory is kept from image to image */
    int side, stride; /* stride: bytes of one pair of rows in the ring */
    int height, done_pairs, done_rows; /* of the input; input pairs taken; output rows written */
    int ring_pairs;
    struct axis across, down;
    uint8_t *ring; /* [ring_pairs][stride]: the two rows' values side by side, after the horizontal pass */
    const uint8_t **window; /* the pairs that one output row is made of */
    uint8_t *gather; /* the tables of the horizontal pass with AVX-512 */
    int vector_bits; /* 512 with AVX-512, 256 with AVX2, 0 in plain C */
    uint8_t *out; /* [side][side][3] */
    void *memory;
    size_t memory_bytes;
};

/* 0 when there is no memory. */
int resizer_begin(struct resizer *r, int width, int height, int side, int flip, uint8_t *out);
/* The next two rows; the second is ignored when the height is odd and this is the last pair. */
void resizer_take(struct resizer *r, const uint8_t *above, const uint8_t *below);
void resizer_free(struct resizer *r);
/* The most bits of a vector, where the processor has as many: 512, 256 or 0. All give the same bytes; tests compare them. */
void effnet_use_vectors(int bits);

/* resize_avx512.c; prepare_gather fills `gather`, or returns 0 for sizes that across_avx512 does not support. */
int supports_avx512(void);
size_t gather_bytes(int outputs, int pairs);
int prepare_gather(struct resizer *r);
void across_avx512(const struct resizer *r, const uint8_t *above, const uint8_t *below, uint8_t *to);

#endif

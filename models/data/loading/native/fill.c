/* A chunk of images in one call, which Python makes without holding its lock. */
#include <stdlib.h>
#include <string.h>

#include "jpeg.h"

void effnet_apply_op(uint8_t *pixels, uint8_t *scratch, int side, int32_t code, const float *arg); /* ops.c */

/* data, sizes [n]; boxes [n, 4]; flips [n]; out [n, side, side, 3]; codes [n, k] and args [n, k, 3], or NULL with k = 0.
 * Fills status [n] (DONE, NOT_OURS, OUTSIDE) and found [n, 2] (width, height where the header was read).
 * Returns 0, or 1 when there is no memory. */
int effnet_fill(int64_t n, const uint8_t *const *data, const int64_t *sizes, const int32_t *boxes, const uint8_t *flips,
                int side, uint8_t *out, int k, const int32_t *codes, const float *args, int32_t *status, int32_t *found) {
    const size_t bytes = 3 * (size_t)side * (size_t)side;
    struct reader *reader = calloc(1, sizeof *reader);
    uint8_t *scratch = k ? malloc(bytes) : NULL;
    const int ready = reader && (scratch || !k);
    for (int64_t i = 0; ready && i < n; i++) {
        uint8_t *pixels = out + bytes * (size_t)i;
        status[i] = read_box(reader, data[i], (size_t)sizes[i], boxes + 4 * i, flips[i], side, pixels, found + 2 * i);
        for (int64_t j = i * k; status[i] == DONE && j < (i + 1) * k; j++)
            if (codes[j]) effnet_apply_op(pixels, scratch, side, codes[j], args + 3 * j);
    }
    if (reader) reader_free(reader);
    free(reader);
    free(scratch);
    return !ready;
}

/* The part of a JPEG that a box needs, decoded to RGBX rows. */
#ifndef EFFNET_JPEG_H
#define EFFNET_JPEG_H
#include <setjmp.h>
#include <stdint.h>

#include "jpeg62.h"
#include "resize.h"

enum { DONE = 0, NOT_OURS = 1, OUTSIDE = 2 }; /* models/data/loading/native/__init__.py knows these numbers */
enum { MAX_PIXELS = 64 * 1024 * 1024 }; /* as in models/data/loading/decode.py */

struct reader { /* info comes first: libjpeg's callbacks get its address */
    struct jpeg_decompress info;
    struct jpeg_errors errors;
    struct jpeg_source source;
    jmp_buf escape;
    struct resizer resizer; /* both kept from image to image */
    uint8_t *rows;
    size_t rows_bytes;
};

int read_box(struct reader *r, const uint8_t *data, size_t size, const int32_t box[4], int flip, int side, uint8_t *out,
             int32_t found[2]);
void reader_free(struct reader *r);

#endif

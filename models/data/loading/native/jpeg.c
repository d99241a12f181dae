/* Region-of-interest decode with the libjpeg that is already on the machine.
 *
 * Whatever libjpeg reports as an error, and every kind of JPEG that is not 8-bit grey or three colours, is NOT_OURS:
 * Pillow then decides, so there is one verdict and one message whichever decoder is in use. Warnings about corrupt data
 * are accepted, as Pillow accepts them.
 */
#include "jpeg.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct jpeg_functions jpeg;
static const char *const names[] = {
    "jpeg_std_error", "jpeg_CreateDecompress", "jpeg_read_header", "jpeg_start_decompress", "jpeg_crop_scanline",
    "jpeg_skip_scanlines", "jpeg_read_scanlines", "jpeg_resync_to_restart", "jpeg_destroy_decompress",
};

static void on_error(struct jpeg_decompress *info) { longjmp(((struct reader *)info)->escape, 1); }
static void on_message(struct jpeg_decompress *info, int level) { (void)info, (void)level; }
static void nothing(struct jpeg_decompress *info) { (void)info; }

static int on_end_of_data(struct jpeg_decompress *info) {
    on_error(info);
    return 0;
}

static void on_skip(struct jpeg_decompress *info, long bytes) {
    if (bytes <= 0) return;
    if ((size_t)bytes > info->src->bytes_in_buffer) on_error(info);
    info->src->next_input_byte += bytes;
    info->src->bytes_in_buffer -= (size_t)bytes;
}

/* After this and a setjmp to r->escape, the header may be read. */
static void prepare(struct reader *r, const uint8_t *data, size_t size) {
    memset(&r->info, 0, sizeof r->info);
    r->info.err = jpeg.std_error(&r->errors);
    r->errors.error_exit = on_error;
    r->errors.emit_message = on_message;
    r->errors.output_message = nothing;
    r->source = (struct jpeg_source){data, size, nothing, on_end_of_data, on_skip, jpeg.resync_to_restart, nothing};
}

static void create(struct reader *r) {
    jpeg.create(&r->info, JPEG_ABI, sizeof r->info);
    r->info.src = &r->source;
}

/* Opens the libjpeg at `path` (or of this name); 0, or 1 with the reason. */
int effnet_open_jpeg(const char *path, char *reason, int reason_size) {
    struct jpeg_functions found;
    _Static_assert(sizeof found == sizeof names, "one name for each function");
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(reason, (size_t)reason_size, "%s", dlerror());
        return 1;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        void *function = dlsym(library, names[i]);
        if (!function) {
            snprintf(reason, (size_t)reason_size, "%s has no %s", path, names[i]);
            dlclose(library);
            return 1;
        }
        memcpy((char *)&found + i * sizeof function, &function, sizeof function);
    }
    jpeg = found;
    struct reader r;
    prepare(&r, (const uint8_t *)"", 0);
    if (setjmp(r.escape)) {
        snprintf(reason, (size_t)reason_size, "%s does not speak libjpeg's ABI %d", path, JPEG_ABI);
        memset(&jpeg, 0, sizeof jpeg);
        dlclose(library);
        return 1;
    }
    create(&r);
    jpeg.destroy(&r.info);
    return 0;
}

/* Entropy-coded data holds no FF D9, so this finds what follows the scans; a file without it is truncated for Pillow
 * even when the rows that we need are there. */
static int has_end(const uint8_t *from, size_t size) {
    for (const uint8_t *to = from + size; to - from >= 2; to--)
        if (to[-2] == 0xFF && to[-1] == 0xD9) return 1;
    return 0;
}

static int is_ours(const struct reader *r) {
    const struct jpeg_decompress *i = &r->info;
    if (i->data_precision != 8 || (uint64_t)i->image_width * i->image_height > MAX_PIXELS) return 0;
    const int grey = i->num_components == 1 && i->jpeg_color_space == SPACE_GREY;
    const int colour = i->num_components == 3 && (i->jpeg_color_space == SPACE_YCC || i->jpeg_color_space == SPACE_RGB);
    return (grey || colour) && has_end(r->source.next_input_byte, r->source.bytes_in_buffer);
}

/* Rows `top` to `bottom` into the resizer; `left` is where the box begins in a decoded row. */
static void stream_rows(struct reader *r, unsigned top, unsigned bottom, unsigned left, size_t row_bytes) {
    uint8_t *rows[2] = {r->rows, r->rows + row_bytes};
    unsigned have = 0, wanted = bottom - top;
    if (top) jpeg.skip_scanlines(&r->info, top);
    while (wanted) {
        const unsigned room = 2 - have < wanted ? 2 - have : wanted;
        const unsigned got = jpeg.read_scanlines(&r->info, rows + have, room);
        if (!got) on_error(&r->info); /* cannot be: our source never suspends */
        have += got;
        wanted -= got;
        if (have == 2 || !wanted) {
            resizer_take(&r->resizer, rows[0] + 4 * left, rows[1] + 4 * left);
            have = 0;
        }
    }
}

/* Chroma at the border of a decoded part is interpolated as at the border of an image. So a pixel of chroma more is
 * decoded on both sides: the box's own pixels are then those of a full decode. libjpeg itself minds rows above. */
static unsigned crop(struct reader *r, const int32_t box[4]) {
    const unsigned margin = r->info.max_h_samp_factor > 1 ? 2u * (unsigned)r->info.max_h_samp_factor : 0;
    const unsigned from = (unsigned)box[0] > margin ? (unsigned)box[0] - margin : 0;
    const unsigned all = r->info.output_width, to = (unsigned)box[2] + margin < all ? (unsigned)box[2] + margin : all;
    unsigned left = from, width = to - from;
    if (width < all) jpeg.crop_scanline(&r->info, &left, &width); /* moves left to the left, to a block's border */
    return (unsigned)box[0] - left;
}

int read_box(struct reader *r, const uint8_t *data, size_t size, const int32_t box[4], int flip, int side, uint8_t *out,
             int32_t found[2]) {
    prepare(r, data, size);
    if (setjmp(r->escape)) {
        jpeg.destroy(&r->info);
        return NOT_OURS;
    }
    create(r);
    if (jpeg.read_header(&r->info, 1) != JPEG_HEADER_OK || !is_ours(r)) on_error(&r->info);
    found[0] = (int32_t)r->info.image_width;
    found[1] = (int32_t)r->info.image_height;
    if (box[0] < 0 || box[1] < 0 || box[0] >= box[2] || box[1] >= box[3] || box[2] > found[0] || box[3] > found[1]) {
        jpeg.destroy(&r->info);
        return OUTSIDE;
    }
    r->info.out_color_space = SPACE_RGBX;
    if (!jpeg.start(&r->info)) on_error(&r->info);
    const unsigned left = crop(r, box);
    const size_t row_bytes = 4 * (size_t)r->info.output_width + ROW_SLACK;
    if (2 * row_bytes > r->rows_bytes) {
        free(r->rows);
        r->rows = calloc(2, row_bytes);
        r->rows_bytes = r->rows ? 2 * row_bytes : 0;
    }
    if (!r->rows || !resizer_begin(&r->resizer, box[2] - box[0], box[3] - box[1], side, flip, out)) on_error(&r->info);
    stream_rows(r, (unsigned)box[1], (unsigned)box[3], left, row_bytes);
    jpeg.destroy(&r->info);
    return DONE;
}

void reader_free(struct reader *r) {
    free(r->rows);
    resizer_free(&r->resizer);
    memset(r, 0, sizeof *r);
}

/* Only the Huffman decode of a whole image, the part that nothing can avoid: what benchmarks compare with. 0 = done. */
int effnet_entropy_decode(const uint8_t *data, int64_t size) {
    struct reader r;
    prepare(&r, data, (size_t)size);
    if (setjmp(r.escape)) {
        jpeg.destroy(&r.info);
        return NOT_OURS;
    }
    create(&r);
    if (jpeg.read_header(&r.info, 1) != JPEG_HEADER_OK) on_error(&r.info);
    jpeg.start(&r.info);
    unsigned left = 0, width = 1;
    jpeg.crop_scanline(&r.info, &left, &width);
    jpeg.skip_scanlines(&r.info, r.info.output_height - 1); /* all rows at once would skip the work as well */
    jpeg.destroy(&r.info);
    return DONE;
}

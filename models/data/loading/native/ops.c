/* The sixteen operations of AutoAugment and RandAugment on one RGB image, to the bit as Pillow computes them.
 *
 * models/data/loading/pillow_ops.py is the same list through Pillow itself; tests/unit/models/data/loading/test_auto_augment.py compares the two.
 * A comment names Pillow's file where its arithmetic has to be followed to the letter. Nothing is allocated here.
 *
 * Source for the arithmetic: Pillow 12 and 13, PIL/ImageOps.py, PIL/ImageEnhance.py, libImaging/{Blend,Convert,Filter,Geometry}.c.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* One build for every x86-64, the wide instructions chosen when the library is loaded. Not avx2+fma: a fused
 * multiply-add rounds once where Pillow's wheels round twice. glibc only, for musl and macOS have no ifunc. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE __attribute__((target_clones("avx2", "default")))
#else
#define WIDE
#endif
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=off")
#elif defined(__clang__)
#pragma clang fp contract(off)
#endif

enum { /* the numbers of models.data.loading.policies.Op */
    NOTHING, AUTOCONTRAST, EQUALIZE, INVERT, ROTATE, POSTERIZE, SOLARIZE, COLOR, CONTRAST, BRIGHTNESS,
    SHARPNESS, SHEAR_X, SHEAR_Y, TRANSLATE_X, TRANSLATE_Y, CUTOUT, SOLARIZE_ADD
};
enum { FILL = 128 }; /* grey where a geometric operation finds no pixel; autoaugment.py: replace_value */

static inline uint8_t clip8(int v) { return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v); }

/* Blend.c: from `a` towards `b`; factor > 1 goes beyond. In float, towards zero: then clipping the integer is the same. */
static inline uint8_t blend(int a, int b, float factor) { return clip8((int)((float)a + factor * (float)(b - a))); }

/* Convert.c, L24 */
static inline int grey(const uint8_t *p) { return (p[0] * 19595 + p[1] * 38470 + p[2] * 7471 + 0x8000) >> 16; }

/* ------------------------------------------------------------------ a table for each channel */

WIDE static void apply_tables(uint8_t *restrict p, size_t pixels, const uint8_t *restrict tables) {
    const uint8_t *r = tables, *g = tables + 256, *b = tables + 512;
    for (size_t i = 0; i < 3 * pixels; i += 3) {
        p[i] = r[p[i]];
        p[i + 1] = g[p[i + 1]];
        p[i + 2] = b[p[i + 2]];
    }
}

/* Four counters in turn, for neighbours are often equal and would wait for each other's increment. */
static void histograms(const uint8_t *p, size_t pixels, uint32_t counts[3][256]) {
    uint32_t parts[4][3][256];
    memset(parts, 0, sizeof parts);
    size_t i = 0;
    for (; i + 4 <= pixels; i += 4, p += 12)
        for (int k = 0; k < 4; k++)
            for (int c = 0; c < 3; c++) parts[k][c][p[3 * k + c]]++;
    for (; i < pixels; i++, p += 3)
        for (int c = 0; c < 3; c++) parts[0][c][p[c]]++;
    for (int c = 0; c < 3; c++)
        for (int v = 0; v < 256; v++) counts[c][v] = parts[0][c][v] + parts[1][c][v] + parts[2][c][v] + parts[3][c][v];
}

static void equalize(uint8_t *p, size_t pixels) { /* ImageOps.equalize */
    uint32_t counts[3][256];
    uint8_t tables[3][256];
    histograms(p, pixels, counts);
    for (int c = 0; c < 3; c++) {
        int last = 255;
        while (last > 0 && counts[c][last] == 0) last--;
        /* one value only: all pixels are the last count, so the step is 0 as well */
        uint32_t step = ((uint32_t)pixels - counts[c][last]) / 255, n = step / 2;
        for (int v = 0; v < 256; v++) {
            uint32_t to = step ? n / step : (uint32_t)v;
            tables[c][v] = (uint8_t)(to > 255 ? 255 : to);
            n += counts[c][v];
        }
    }
    apply_tables(p, pixels, tables[0]);
}

enum { LANES = 96 }; /* a multiple of three, so that a lane keeps its channel, and of 32 */

WIDE static void extremes(const uint8_t *restrict p, size_t bytes, uint8_t low[3], uint8_t high[3]) {
    uint8_t lo[LANES], hi[LANES];
    memset(lo, 255, sizeof lo);
    memset(hi, 0, sizeof hi);
    size_t i = 0;
    for (; i + LANES <= bytes; i += LANES)
        for (int k = 0; k < LANES; k++) {
            uint8_t v = p[i + k];
            lo[k] = v < lo[k] ? v : lo[k];
            hi[k] = v > hi[k] ? v : hi[k];
        }
    for (int k = 0; i < bytes; i++, k++) {
        lo[k] = p[i] < lo[k] ? p[i] : lo[k];
        hi[k] = p[i] > hi[k] ? p[i] : hi[k];
    }
    for (int c = 0; c < 3; c++) {
        low[c] = 255, high[c] = 0;
        for (int k = c; k < LANES; k += 3) {
            low[c] = lo[k] < low[c] ? lo[k] : low[c];
            high[c] = hi[k] > high[c] ? hi[k] : high[c];
        }
    }
}

static void autocontrast(uint8_t *p, size_t pixels) { /* ImageOps.autocontrast: in double, towards zero */
    uint8_t low[3], high[3], tables[3][256];
    extremes(p, 3 * pixels, low, high);
    for (int c = 0; c < 3; c++) {
        double scale = high[c] > low[c] ? 255.0 / (high[c] - low[c]) : 1.0;
        double offset = high[c] > low[c] ? -low[c] * scale : 0.0;
        for (int v = 0; v < 256; v++) tables[c][v] = clip8((int)(v * scale + offset));
    }
    apply_tables(p, pixels, tables[0]);
}

/* ------------------------------------------------------------------ every byte for itself */

WIDE static void invert(uint8_t *restrict p, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) p[i] = (uint8_t)(255 - p[i]);
}

WIDE static void posterize(uint8_t *restrict p, size_t bytes, int bits) {
    if (bits < 0 || bits > 8) return;
    const uint8_t mask = (uint8_t)~((1 << (8 - bits)) - 1);
    for (size_t i = 0; i < bytes; i++) p[i] &= mask;
}

WIDE static void solarize(uint8_t *restrict p, size_t bytes, int threshold) {
    if (threshold > 255) return;
    const uint8_t from = (uint8_t)(threshold < 0 ? 0 : threshold);
    for (size_t i = 0; i < bytes; i++) p[i] = (uint8_t)(p[i] < from ? p[i] : 255 - p[i]);
}

WIDE static void solarize_add(uint8_t *restrict p, size_t bytes, int add) { /* add >= 0; sums stop at 255 */
    const int more = add > 255 ? 255 : add;
    for (size_t i = 0; i < bytes; i++) {
        const int sum = p[i] + more;
        p[i] = (uint8_t)(p[i] >= 128 ? p[i] : sum > 255 ? 255 : sum);
    }
}

/* Brightness and contrast: towards one grey value, 0 or the mean. */
WIDE static void towards(uint8_t *restrict p, size_t bytes, int value, float factor) {
    for (size_t i = 0; i < bytes; i++) p[i] = blend(value, p[i], factor);
}

/* ImageEnhance.Contrast: the mean of the grey image, rounded */
WIDE static int mean_grey(const uint8_t *restrict p, size_t pixels) {
    uint64_t total = 0;
    for (size_t start = 0; start < pixels; start += 4096) { /* 4096 values of a byte fit in 32 bits: narrower sums */
        size_t end = start + 4096 < pixels ? start + 4096 : pixels;
        uint32_t sum = 0;
        for (size_t i = start; i < end; i++) sum += (uint32_t)grey(p + 3 * i);
        total += sum;
    }
    return (int)((double)total / (double)pixels + 0.5);
}

WIDE static void color(uint8_t *restrict p, size_t pixels, float factor) {
    for (size_t i = 0; i < pixels; i++) {
        uint8_t *q = p + 3 * i;
        int g = grey(q);
        uint8_t r0 = blend(g, q[0], factor), r1 = blend(g, q[1], factor), r2 = blend(g, q[2], factor);
        q[0] = r0, q[1] = r1, q[2] = r2;
    }
}

/* ------------------------------------------------------------------ with neighbours */

/* Filter.c with ImageFilter.SMOOTH (1 1 1, 1 5 1, 1 1 1; / 13), then a blend. Its float sum + 0.5 is never nearer than
 * 0.5/13 to an integer, so whole numbers give the same: (sum + 6) / 13, and 5042/65536 is 1/13 for sums up to 3321. */
WIDE static void sharpen_row(uint8_t *restrict out, const uint8_t *restrict in, ptrdiff_t row, int bytes, float factor) {
    for (int i = 3; i < bytes - 3; i++) {
        const uint8_t *q = in + i;
        unsigned sum = q[-row - 3] + q[-row] + q[-row + 3] + q[-3] + 5u * q[0] + q[3] + q[row - 3] + q[row] + q[row + 3];
        int smooth = (int)((uint16_t)(sum + 6) * 5042u >> 16);
        out[i] = blend(smooth, q[0], factor);
    }
}

static void sharpness(uint8_t *p, uint8_t *copy, int side, float factor) { /* the border stays as it is */
    ptrdiff_t row = 3 * (ptrdiff_t)side;
    memcpy(copy, p, (size_t)(row * side));
    for (int y = 1; y < side - 1; y++) sharpen_row(p + y * row, copy + y * row, row, (int)row, factor);
}

/* ------------------------------------------------------------------ geometry: nearest neighbour, grey outside */

static int64_t floor_div(int64_t a, int64_t b) { return a / b - ((a % b != 0) && ((a < 0) != (b < 0))); }

/* The x for which 0 <= start + x * step < limit, cut to what *from and *to already allow. */
static void inside(int64_t start, int64_t step, int64_t limit, int *from, int *to) {
    int64_t first, end;
    if (step == 0) {
        if (start < 0 || start >= limit) *to = *from;
        return;
    }
    if (step > 0) {
        first = -floor_div(start, step);
        end = -floor_div(start - limit, step);
    } else {
        first = floor_div(start - limit, -step) + 1;
        end = floor_div(start, -step) + 1;
    }
    if (first > *from) *from = (int)(first > *to ? *to : first);
    if (end < *to) *to = (int)(end < *from ? *from : end);
}

static int64_t fixed(double v) { return (int64_t)floor(v * 65536.0 + 0.5); }

/* Geometry.c, affine_fixed: 16.16 steps from output pixel centres to input pixels. */
static void affine(uint8_t *p, uint8_t *copy, int side, const double a[6]) {
    const ptrdiff_t row = 3 * (ptrdiff_t)side;
    const int64_t limit = (int64_t)side << 16, dx = fixed(a[0]), dy = fixed(a[3]);
    int64_t x0 = fixed(a[2] + a[0] * 0.5 + a[1] * 0.5), y0 = fixed(a[5] + a[3] * 0.5 + a[4] * 0.5);
    memcpy(copy, p, (size_t)(row * side));
    for (int y = 0; y < side; y++, x0 += fixed(a[1]), y0 += fixed(a[4])) {
        uint8_t *out = p + y * row;
        int from = 0, to = side;
        inside(x0, dx, limit, &from, &to);
        inside(y0, dy, limit, &from, &to);
        memset(out, FILL, 3 * (size_t)from);
        memset(out + 3 * to, FILL, 3 * (size_t)(side - to));
        if (from >= to) continue;
        if (dx == 65536 && dy == 0) { /* a shear along x only moves each row */
            memcpy(out + 3 * from, copy + (y0 >> 16) * row + 3 * (from + (x0 >> 16)), 3 * (size_t)(to - from));
            continue;
        }
        int32_t xx = (int32_t)(x0 + from * dx), yy = (int32_t)(y0 + from * dy);
        for (int x = from; x < to; x++, xx += (int32_t)dx, yy += (int32_t)dy)
            memcpy(out + 3 * x, copy + (yy >> 16) * row + 3 * (xx >> 16), 3);
    }
}

static double round15(double v) { return nearbyint(v * 1e15) / 1e15; } /* Python's round(v, 15) for |v| <= 1 */

static void rotate(uint8_t *p, uint8_t *copy, int side, float degrees) { /* Image.rotate: round the centre */
    const double pi = 3.141592653589793;
    double angle = -(fmod(fmod((double)degrees, 360.0) + 360.0, 360.0) * (pi / 180.0)), c = side / 2.0;
    double a[6] = {round15(cos(angle)), round15(sin(angle)), 0.0, round15(-sin(angle)), round15(cos(angle)), 0.0};
    if (a[0] == 1.0) return;
    a[2] = a[0] * -c + a[1] * -c + 0.0 + c;
    a[5] = a[3] * -c + a[4] * -c + 0.0 + c;
    affine(p, copy, side, a);
}

/* Geometry.c, ImagingScaleAffine with scale 1: whole pixels, out(x, y) = in(x + dx, y + dy). */
static void translate(uint8_t *p, uint8_t *copy, int side, double dx, double dy) {
    double a[6] = {1.0, 0.0, floor(dx + 0.5), 0.0, 1.0, floor(dy + 0.5)};
    for (int k = 2; k < 6; k += 3) a[k] = a[k] > side ? side : a[k] < -side ? -side : a[k];
    affine(p, copy, side, a);
}

static void cutout(uint8_t *p, int side, int half, int cx, int cy) {
    int left = cx - half < 0 ? 0 : cx - half, right = cx + half > side ? side : cx + half;
    int top = cy - half < 0 ? 0 : cy - half, bottom = cy + half > side ? side : cy + half;
    for (int y = top; y < bottom && left < right; y++)
        memset(p + 3 * ((ptrdiff_t)y * side + left), FILL, 3 * (size_t)(right - left));
}

/* One operation, in place. scratch: as large as pixels. An unknown code does nothing. */
void effnet_apply_op(uint8_t *pixels, uint8_t *scratch, int side, int32_t code, const float *arg) {
    const size_t count = (size_t)side * (size_t)side, bytes = 3 * count;
    switch (code) {
        case AUTOCONTRAST: autocontrast(pixels, count); break;
        case EQUALIZE: equalize(pixels, count); break;
        case INVERT: invert(pixels, bytes); break;
        case ROTATE: rotate(pixels, scratch, side, arg[0]); break;
        case POSTERIZE: posterize(pixels, bytes, (int)arg[0]); break;
        case SOLARIZE: solarize(pixels, bytes, (int)arg[0]); break;
        case SOLARIZE_ADD: solarize_add(pixels, bytes, (int)arg[0]); break;
        case COLOR: color(pixels, count, arg[0]); break;
        case CONTRAST: towards(pixels, bytes, mean_grey(pixels, count), arg[0]); break;
        case BRIGHTNESS: towards(pixels, bytes, 0, arg[0]); break;
        case SHARPNESS: sharpness(pixels, scratch, side, arg[0]); break;
        case SHEAR_X: affine(pixels, scratch, side, (double[6]){1.0, arg[0], 0.0, 0.0, 1.0, 0.0}); break;
        case SHEAR_Y: affine(pixels, scratch, side, (double[6]){1.0, 0.0, 0.0, arg[0], 1.0, 0.0}); break;
        case TRANSLATE_X: translate(pixels, scratch, side, arg[0], 0.0); break;
        case TRANSLATE_Y: translate(pixels, scratch, side, 0.0, arg[0]); break;
        case CUTOUT: cutout(pixels, side, (int)arg[0], (int)arg[1], (int)arg[2]); break;
        default: break;
    }
}

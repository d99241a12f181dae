/* Depthwise convolution and its gradients: packs the weights, divides the work into tasks and channels into vectors. */
#include <stdlib.h>
#include <string.h>

#include "layers.h"

enum { TASK_PRODUCTS = 1 << 19, MOST_PARTS = 16, PART_PIXELS = 256 };

typedef void (*kernel_function)(const struct depthwise *, const float *, const float *, float *, int64_t, int64_t, int64_t,
                                int64_t);

struct work {
    const struct depthwise *d;
    const float *a, *b;
    float *out;
    int64_t rows, rows_per_task, part; /* `part`: distance of the tasks' outputs, if each has one */
    int which;
};

static kernel_function choose(const struct lanes *lanes, int which) {
    return which == 0 ? lanes->convolve : which == 1 ? lanes->transpose : lanes->correlate;
}

static void run_task(void *context, int64_t task) {
    const struct work *work = context;
    const struct lanes *const *lanes = supported_lanes();
    const int64_t row = task * work->rows_per_task, channels = work->d->channels;
    const int64_t rows = row + work->rows_per_task < work->rows ? row + work->rows_per_task : work->rows;
    for (int64_t first = 0, end; first < channels; first = end) {
        while ((*lanes)->width > channels - first) lanes++;
        end = first + (channels - first) / (*lanes)->width * (*lanes)->width;
        choose(*lanes, work->which)(work->d, work->a, work->b, work->out + task * work->part, row, rows, first, end);
    }
}

static void run(struct work *work, int64_t products_per_row, int threads) {
    const int64_t rows = TASK_PRODUCTS / products_per_row;
    work->rows_per_task = rows < 1 ? 1 : rows > work->rows ? work->rows : rows;
    run_tasks(run_task, work, (work->rows + work->rows_per_task - 1) / work->rows_per_task, threads);
}

/* [channels, taps] to [taps, channels], in reverse order of the taps if `flip`; NULL if there is no memory. */
static float *pack(const struct depthwise *d, const float *weights, int flip) {
    const int64_t taps = d->kernel * d->kernel;
    float *packed = malloc(sizeof(float) * (size_t)(taps * d->channels));
    if (!packed) return NULL;
    for (int64_t c = 0; c < d->channels; c++)
        for (int64_t tap = 0; tap < taps; tap++)
            packed[(flip ? taps - 1 - tap : tap) * d->channels + c] = weights[c * taps + tap];
    return packed;
}

/* Each of these returns 0, or 1 if there is no memory. */

int effnet_depthwise(const struct depthwise *d, const float *x, const float *weights, float *y, int threads) {
    float *packed = pack(d, weights, 0);
    if (!packed) return 1;
    struct work work = {d, x, packed, y, d->images * d->out_height, 0, 0, 0};
    run(&work, d->out_width * d->channels * d->kernel * d->kernel, threads);
    free(packed);
    return 0;
}

int effnet_depthwise_input(const struct depthwise *d, const float *dy, const float *weights, float *dx, int threads) {
    float *packed = pack(d, weights, d->stride == 1);
    if (!packed) return 1;
    /* At stride 1 it is the convolution of dy by the flipped kernel. */
    const struct depthwise flipped = {d->images, d->out_height, d->out_width, d->channels, d->height, d->width,
                                      d->kernel, 1, d->kernel - 1 - d->top, d->kernel - 1 - d->left};
    struct work work = {d->stride == 1 ? &flipped : d, dy, packed, dx, d->images * d->height, 0, 0, d->stride != 1};
    run(&work, d->width * d->channels * d->kernel * d->kernel / (d->stride * d->stride), threads);
    free(packed);
    return 0;
}

int effnet_depthwise_weights(const struct depthwise *d, const float *x, const float *dy, float *gradient, int threads) {
    const int64_t taps = d->kernel * d->kernel, size = taps * d->channels, rows = d->images * d->out_height;
    int64_t parts = rows * d->out_width / PART_PIXELS;
    parts = parts > MOST_PARTS ? MOST_PARTS : parts;
    parts = parts > rows ? rows : parts < 1 ? 1 : parts;
    struct work work = {d, x, dy, NULL, rows, (rows + parts - 1) / parts, size, 2};
    parts = (rows + work.rows_per_task - 1) / work.rows_per_task;
    float *sums = work.out = calloc((size_t)(parts * size), sizeof(float));
    if (!sums) return 1;
    run_tasks(run_task, &work, parts, threads);
    for (int64_t part = 1; part < parts; part++)
        for (int64_t i = 0; i < size; i++) sums[i] += sums[part * size + i];
    for (int64_t c = 0; c < d->channels; c++)
        for (int64_t tap = 0; tap < taps; tap++) gradient[c * taps + tap] = sums[tap * d->channels + c];
    free(sums);
    return 0;
}

/* Divides the pixels of a batch among tasks. */
#include "layers.h"

enum { TASK_VALUES = 3 << 16 };

struct batch {
    const uint8_t *pixels;
    const float *mean, *deviation;
    float *out;
    int64_t size;
};

static void standardize_task(void *context, int64_t task) {
    const struct batch *b = context;
    const int64_t first = task * TASK_VALUES, left = b->size - first;
    (*supported_lanes())->standardize(b->pixels + first, b->mean, b->deviation, b->out + first, left < TASK_VALUES ? left : TASK_VALUES);
}

void effnet_standardize(const uint8_t *pixels, const float *mean, const float *deviation, float *out, int64_t size, int threads) {
    struct batch batch = {pixels, mean, deviation, out, size};
    run_tasks(standardize_task, &batch, (size + TASK_VALUES - 1) / TASK_VALUES, threads);
}

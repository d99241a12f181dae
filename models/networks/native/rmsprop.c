/* Divides the weights among tasks. */
#include "layers.h"

enum { TASK_WEIGHTS = 1 << 16 };

struct update {
    const struct rmsprop *r;
    int64_t size;
};

static void update_task(void *context, int64_t task) {
    const struct update *update = context;
    const int64_t first = task * TASK_WEIGHTS, end = first + TASK_WEIGHTS;
    (*supported_lanes())->rmsprop(update->r, first, end < update->size ? end : update->size);
}

void effnet_rmsprop(const struct rmsprop *r, int64_t size, int threads) {
    struct update update = {r, size};
    run_tasks(update_task, &update, (size + TASK_WEIGHTS - 1) / TASK_WEIGHTS, threads);
}

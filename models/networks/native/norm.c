/* Batch norm with its activation, and squeeze-and-excitation's passes over pixels: statistics, tasks, vectors. */
#include <math.h>
#include <stdlib.h>

#include "layers.h"

enum {
    TASK_FLOATS = 1 << 15, /* 128 kB: stays in the level 2 cache between the two passes over it */
    FEW_FLOATS = 1 << 16,  /* with fewer, waking other threads takes longer than the work */
};

/* Runs `call` with (*lanes)->..., `first` and `end` for all channels. */
#define FOR_CHANNELS(count, call)                                                             \
    do {                                                                                      \
        const struct lanes *const *lanes = supported_lanes();                                 \
        for (int64_t first = 0, end; first < (count); first = end) {                          \
            while ((*lanes)->width > (count) - first) lanes++;                                \
            end = first + ((count) - first) / (*lanes)->width * (*lanes)->width;              \
            call;                                                                             \
        }                                                                                     \
    } while (0)

struct pass { /* over all pixels; every task has two rows of `parts` */
    const struct norm *n;
    const float *x, *dy, *scale, *shift, *mean, *keep, *residual, *offset, *slope;
    float *out, *parts;
    int64_t rows; /* pixels of a task */
};

static int64_t end_of(const struct pass *p, int64_t row) {
    return row + p->rows < p->n->pixels ? row + p->rows : p->n->pixels;
}

static void moments_task(void *context, int64_t task) {
    const struct pass *p = context;
    const int64_t channels = p->n->channels, row = task * p->rows;
    float *mean = p->parts + 2 * task * channels, *squares = mean + channels;
    FOR_CHANNELS(channels, (*lanes)->moments(p->x + row * channels, end_of(p, row) - row, channels, mean, squares, first, end));
}

static void normalize_task(void *context, int64_t task) {
    const struct pass *p = context;
    const int64_t row = task * p->rows;
    FOR_CHANNELS(p->n->channels, (*lanes)->normalize(p->n, p->x, p->scale, p->shift, p->keep, p->residual, p->out, row,
                                                     end_of(p, row), first, end));
}

static void differentiate_task(void *context, int64_t task) {
    const struct pass *p = context;
    const int64_t row = task * p->rows;
    float *sum = p->parts + 2 * task * p->n->channels, *product = sum + p->n->channels;
    FOR_CHANNELS(p->n->channels, (*lanes)->differentiate(p->n, p->x, p->dy, p->scale, p->shift, p->mean, p->keep, p->out,
                                                         sum, product, row, end_of(p, row), first, end));
}

static void project_task(void *context, int64_t task) {
    const struct pass *p = context;
    const int64_t channels = p->n->channels, row = task * p->rows, at = row * channels;
    FOR_CHANNELS(channels, (*lanes)->project(p->x + at, p->dy + at, p->scale, p->mean, p->offset, p->slope, p->out + at,
                                             end_of(p, row) - row, channels, first, end));
}

static int64_t divide(struct pass *p) { /* returns the number of tasks */
    p->rows = TASK_FLOATS / p->n->channels < 16 ? 16 : TASK_FLOATS / p->n->channels;
    return (p->n->pixels + p->rows - 1) / p->rows;
}

/* Combines the tasks' moments in their order. Source: Chan, Golub, LeVeque, "Updating formulae ... for computing sample
 * variances", 1979. */
static void combine(const struct pass *p, int64_t tasks, int64_t c, double *mean, double *squares) {
    double count = 0.0;
    *mean = *squares = 0.0;
    for (int64_t task = 0; task < tasks; task++) {
        const double rows = (double)(end_of(p, task * p->rows) - task * p->rows), total = count + rows;
        const double delta = p->parts[2 * task * p->n->channels + c] - *mean;
        *mean += delta * rows / total;
        *squares += p->parts[(2 * task + 1) * p->n->channels + c] + delta * delta * count * rows / total;
        count = total;
    }
}

/* Batch norm in training mode, updating the running statistics; then the activation, or the factors `keep` of the images
 * and the residual (either may be NULL). `batches` counts the calls; `saved` receives mean and inverse deviation. Returns 1 if there is no memory. */
int effnet_norm(const struct norm *n, const float *x, const float *gamma, const float *beta, float *running_mean,
                float *running_variance, int64_t *batches, const float *keep, const float *residual, float *y, float *saved, int threads) {
    const int64_t channels = n->channels;
    struct pass p = {.n = n, .x = x, .keep = keep, .residual = residual, .out = y};
    const int64_t tasks = divide(&p);
    p.parts = malloc(sizeof(float) * (size_t)(2 * (tasks + 1) * channels));
    if (!p.parts) return 1;
    *batches += 1;
    run_tasks(moments_task, &p, tasks, threads);
    float *scale = p.parts + 2 * tasks * channels, *shift = scale + channels;
    for (int64_t c = 0; c < channels; c++) {
        double mean, squares;
        combine(&p, tasks, c, &mean, &squares);
        const double inverse = 1.0 / sqrt(squares / (double)n->pixels + n->epsilon);
        const double unbiased = squares / (double)(n->pixels - 1);
        running_mean[c] = (float)((1.0 - n->momentum) * running_mean[c] + n->momentum * mean);
        running_variance[c] = (float)((1.0 - n->momentum) * running_variance[c] + n->momentum * unbiased);
        saved[c] = (float)mean;
        saved[channels + c] = (float)inverse;
        scale[c] = (float)(gamma[c] * inverse);
        shift[c] = (float)(beta[c] - mean * gamma[c] * inverse);
    }
    p.scale = scale;
    p.shift = shift;
    run_tasks(normalize_task, &p, tasks, threads);
    free(p.parts);
    return 0;
}

/* Gradients of effnet_norm. Returns 1 if there is no memory. */
int effnet_norm_backward(const struct norm *n, const float *x, const float *dy, const float *gamma, const float *beta,
                         const float *saved, const float *keep, float *dx, float *dgamma, float *dbeta, int threads) {
    const int64_t channels = n->channels;
    struct pass p = {.n = n, .x = x, .dy = dy, .mean = saved, .keep = keep, .out = dx};
    const int64_t tasks = divide(&p);
    p.parts = malloc(sizeof(float) * (size_t)(2 * (tasks + 2) * channels));
    if (!p.parts) return 1;
    float *scale = p.parts + 2 * tasks * channels, *shift = scale + channels, *offset = shift + channels,
          *slope = offset + channels;
    for (int64_t c = 0; c < channels; c++) {
        const double inverse = saved[channels + c];
        scale[c] = (float)(gamma[c] * inverse);
        shift[c] = (float)(beta[c] - (double)saved[c] * gamma[c] * inverse);
    }
    p.scale = scale;
    p.shift = shift;
    run_tasks(differentiate_task, &p, tasks, threads);
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0.0, product = 0.0;
        const double inverse = saved[channels + c];
        for (int64_t task = 0; task < tasks; task++) {
            sum += p.parts[2 * task * channels + c];
            product += p.parts[(2 * task + 1) * channels + c];
        }
        dbeta[c] = (float)sum;
        dgamma[c] = (float)(product * inverse);
        offset[c] = (float)(gamma[c] * inverse * sum / (double)n->pixels);
        slope[c] = (float)(gamma[c] * inverse * inverse * inverse * product / (double)n->pixels);
    }
    p.offset = offset;
    p.slope = slope;
    if (n->activation || keep) p.dy = dx; /* where the gradient before the activation was stored */
    run_tasks(project_task, &p, tasks, threads);
    free(p.parts);
    return 0;
}

/* ------------------------------------------------------------------ squeeze-and-excitation, [images, pixels, channels] */

struct images {
    const float *x, *dy, *scale, *shift;
    float *out, factor;
    int64_t pixels, channels;
};

static void reduce_task(void *context, int64_t image) {
    const struct images *i = context;
    const int64_t at = image * i->pixels * i->channels;
    FOR_CHANNELS(i->channels, (*lanes)->reduce(i->x + at, i->dy ? i->dy + at : NULL, i->factor, i->out + image * i->channels,
                                               i->pixels, i->channels, first, end));
}

static void scale_task(void *context, int64_t image) {
    const struct images *i = context;
    const int64_t at = image * i->pixels * i->channels, row = image * i->channels;
    FOR_CHANNELS(i->channels, (*lanes)->scale(i->x + at, i->scale + row, i->shift ? i->shift + row : NULL, i->out + at,
                                              i->pixels, i->channels, first, end));
}

void effnet_reduce(const float *x, const float *dy, double factor, float *sums, int64_t images, int64_t pixels,
                   int64_t channels, int threads) {
    struct images work = {.x = x, .dy = dy, .out = sums, .factor = (float)factor, .pixels = pixels, .channels = channels};
    run_tasks(reduce_task, &work, images, images * pixels * channels < FEW_FLOATS ? 1 : threads);
}

void effnet_scale(const float *x, const float *scale, const float *shift, float *y, int64_t images, int64_t pixels,
                  int64_t channels, int threads) {
    struct images work = {.x = x, .scale = scale, .shift = shift, .out = y, .pixels = pixels, .channels = channels};
    run_tasks(scale_task, &work, images, images * pixels * channels < FEW_FLOATS ? 1 : threads);
}

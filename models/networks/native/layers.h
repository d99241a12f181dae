/* Kernels for training on a CPU: float32, channels_last memory [N, H, W, C], vectors over channels.
 *
 * A kernel is compiled once for each vector width (lanes.h) and covers channels [first, end), a multiple of its width; the
 * driver covers the remaining channels by narrower ones. Work is divided into tasks by the shape alone and sums are taken in a fixed
 * order, so that results do not depend on the number of threads.
 */
#ifndef EFFNET_LAYERS_H
#define EFFNET_LAYERS_H

#include <stddef.h>
#include <stdint.h>

struct depthwise { /* `top` and `left` pixels of zero padding; on the other sides what the output sizes need */
    int64_t images, height, width, channels, out_height, out_width, kernel, stride, top, left;
};

struct norm { /* `pixels` of all images; activation: 0 none, 1 SiLU, 2 ReLU6 */
    int64_t pixels, image_pixels, channels, activation;
    double epsilon, momentum;
};

struct rmsprop {
    float *weights, *mean_square, *momentum;
    const float *gradients;
    double lr, square_decay, momentum_decay, epsilon, weight_decay;
};

struct lanes {
    int width;
    /* Output rows [row, rows) of all images; `w` holds the weights as [kernel * kernel, channels]. */
    void (*convolve)(const struct depthwise *d, const float *x, const float *w, float *y, int64_t row, int64_t rows,
                     int64_t first, int64_t end);
    /* Input rows [row, rows) of all images, for stride 2. */
    void (*transpose)(const struct depthwise *d, const float *dy, const float *w, float *dx, int64_t row, int64_t rows,
                      int64_t first, int64_t end);
    /* Adds the gradient of output rows [row, rows) to `dw`, [kernel * kernel, channels]. */
    void (*correlate)(const struct depthwise *d, const float *x, const float *dy, float *dw, int64_t row, int64_t rows,
                      int64_t first, int64_t end);
    /* Mean and sum of squared deviations of `rows` pixels. */
    void (*moments)(const float *x, int64_t rows, int64_t channels, float *mean, float *squares, int64_t first, int64_t end);
    /* y = activation(x * scale + shift), or (x * scale + shift) * keep + residual, for pixels [row, rows). */
    void (*normalize)(const struct norm *n, const float *x, const float *scale, const float *shift, const float *keep,
                      const float *residual, float *y, int64_t row, int64_t rows, int64_t first, int64_t end);
    /* dz, the gradient of x * scale + shift, and its sums, alone and multiplied by x - mean, for pixels [row, rows). */
    void (*differentiate)(const struct norm *n, const float *x, const float *dy, const float *scale, const float *shift,
                          const float *mean, const float *keep, float *dz, float *sum, float *product, int64_t row,
                          int64_t rows, int64_t first, int64_t end);
    /* dx = scale * dz - offset - slope * (x - mean), for `rows` pixels; dz and dx may be the same. */
    void (*project)(const float *x, const float *dz, const float *scale, const float *mean, const float *offset,
                    const float *slope, float *dx, int64_t rows, int64_t channels, int64_t first, int64_t end);
    /* Means over `rows` pixels of x, or of x * dy unless that is NULL, multiplied by `factor`. */
    void (*reduce)(const float *x, const float *dy, float factor, float *sum, int64_t rows, int64_t channels, int64_t first,
                   int64_t end);
    /* Sum of a * b, and y += a * x, over `size` floats. */
    float (*dot)(const float *a, const float *b, int64_t size);
    void (*add)(float *y, float a, const float *x, int64_t size);
    /* x = 1 / (1 + exp(-x)) of `size` floats. */
    void (*sigmoids)(float *x, int64_t size);
    /* RMSProp as TensorFlow defines it; models/training/optim.py has the formula. */
    void (*rmsprop)(const struct rmsprop *r, int64_t first, int64_t end);
    /* y = x * scale + shift for `rows` pixels; shift may be NULL. */
    void (*scale)(const float *x, const float *scale, const float *shift, float *y, int64_t rows, int64_t channels,
                  int64_t first, int64_t end);
    /* out = (pixels - mean) / deviation of `size` values of three channels in turn, the first of channel 0. */
    void (*standardize)(const uint8_t *pixels, const float *mean, const float *deviation, float *out, int64_t size);
};

/* The widths that this processor supports, widest first; the last one is 1. */
const struct lanes *const *supported_lanes(void);

/* Sums over an image's pixels of x, or of x * dy unless that is NULL, times `factor`: [images, channels]. */
void effnet_reduce(const float *x, const float *dy, double factor, float *sums, int64_t images, int64_t pixels,
                   int64_t channels, int threads);

/* y = x * scale + shift with a scale and, unless NULL, a shift of each image: [images, channels]. */
void effnet_scale(const float *x, const float *scale, const float *shift, float *y, int64_t images, int64_t pixels,
                  int64_t channels, int threads);

/* Calls `body` for each task, on several threads. */
void run_tasks(void (*body)(void *context, int64_t task), void *context, int64_t tasks, int threads);

#endif

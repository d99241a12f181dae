/* Squeeze-and-excitation with few weights: the calls of a library would take longer than its products. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "layers.h"

static float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

static void transpose(const float *from, float *to, int64_t rows, int64_t columns) {
    for (int64_t row = 0; row < rows; row++)
        for (int64_t column = 0; column < columns; column++) to[column * rows + row] = from[row * columns + column];
}

/* `saved` receives the means and the gates, [images, channels], and the inner values, [images, squeezed]. Returns 1 if there
 * is no memory. */
int effnet_gate(const float *x, const float *reduce, const float *reduce_bias, const float *expand,
                const float *expand_bias, float *y, float *saved, int64_t images, int64_t pixels, int64_t channels,
                int64_t squeezed, int threads) {
    const struct lanes *lanes = *supported_lanes();
    float *means = saved, *gates = means + images * channels, *inner = gates + images * channels;
    float *columns = malloc(sizeof(float) * (size_t)(squeezed * channels));
    if (!columns) return 1;
    transpose(expand, columns, channels, squeezed);
    effnet_reduce(x, NULL, 1.0 / (double)pixels, means, images, pixels, channels, threads);
    for (int64_t n = 0; n < images; n++, means += channels, gates += channels, inner += squeezed) {
        memcpy(gates, expand_bias, sizeof(float) * (size_t)channels);
        for (int64_t s = 0; s < squeezed; s++) {
            const float z = inner[s] = lanes->dot(means, reduce + s * channels, channels) + reduce_bias[s];
            lanes->add(gates, z * sigmoid(z), columns + s * channels, channels);
        }
        lanes->sigmoids(gates, channels);
    }
    effnet_scale(x, saved + images * channels, NULL, y, images, pixels, channels, threads);
    free(columns);
    return 0;
}

/* Gradients of effnet_gate. Returns 1 if there is no memory. */
int effnet_gate_backward(const float *x, const float *dy, const float *reduce, const float *expand, const float *saved,
                         float *dx, float *dreduce, float *dreduce_bias, float *dexpand, float *dexpand_bias,
                         int64_t images, int64_t pixels, int64_t channels, int64_t squeezed, int threads) {
    const struct lanes *lanes = *supported_lanes();
    const float *means = saved, *gates = means + images * channels, *inner = gates + images * channels;
    const size_t weights = (size_t)(squeezed * channels), values = (size_t)(images * channels);
    float *memory = malloc(sizeof(float) * 2 * (weights + values));
    if (!memory) return 1;
    float *columns = memory, *dcolumns = columns + weights, *dgates = dcolumns + weights, *shift = dgates + values;
    transpose(expand, columns, channels, squeezed);
    memset(dcolumns, 0, sizeof(float) * weights);
    memset(shift, 0, sizeof(float) * values);
    memset(dreduce, 0, sizeof(float) * weights);
    memset(dreduce_bias, 0, sizeof(float) * (size_t)squeezed);
    memset(dexpand_bias, 0, sizeof(float) * (size_t)channels);
    effnet_reduce(x, dy, 1.0, dgates, images, pixels, channels, threads);
    for (int64_t n = 0; n < images; n++, means += channels, gates += channels, inner += squeezed) {
        float *outer = dgates + n * channels;
        for (int64_t c = 0; c < channels; c++) outer[c] *= gates[c] * (1.0f - gates[c]);
        lanes->add(dexpand_bias, 1.0f, outer, channels);
        for (int64_t s = 0; s < squeezed; s++) {
            const float z = inner[s], share = sigmoid(z);
            const float d = lanes->dot(outer, columns + s * channels, channels) * share * (1.0f + z * (1.0f - share));
            lanes->add(dcolumns + s * channels, z * share, outer, channels);
            lanes->add(dreduce + s * channels, d, means, channels);
            lanes->add(shift + n * channels, d / (float)pixels, reduce + s * channels, channels);
            dreduce_bias[s] += d;
        }
    }
    transpose(dcolumns, dexpand, squeezed, channels);
    effnet_scale(dy, saved + values, shift, dx, images, pixels, channels, threads);
    free(memory);
    return 0;
}

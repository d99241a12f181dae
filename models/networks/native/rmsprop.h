/* The update of RMSProp in one pass over its four tensors. */

static TARGET void NAME(rmsprop)(const struct rmsprop *r, int64_t first, int64_t end) {
    float *restrict weights = r->weights, *restrict mean_square = r->mean_square, *restrict momentum = r->momentum;
    const float *restrict gradients = r->gradients;
    const float lr = (float)r->lr, square_rate = (float)(1.0 - r->square_decay), momentum_decay = (float)r->momentum_decay,
                epsilon = (float)r->epsilon, weight_decay = (float)r->weight_decay;
    for (int64_t i = first; i < end; i++) { /* vectorized by the compiler */
        const float gradient = gradients[i] + weight_decay * weights[i];
        const float square = mean_square[i] + square_rate * (gradient * gradient - mean_square[i]);
        const float step = momentum_decay * momentum[i] + lr * (gradient / sqrtf(square + epsilon));
        mean_square[i] = square;
        momentum[i] = step;
        weights[i] -= step;
    }
}

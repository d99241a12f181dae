/* Products of small matrices, by rows of any length. */

static TARGET float NAME(dot)(const float *a, const float *b, int64_t size) {
    VEC sums[2] = {ZERO, ZERO};
    int64_t i = 0;
    for (; i + 2 * LANES <= size; i += 2 * LANES) {
        sums[0] += LOAD(a + i) * LOAD(b + i);
        sums[1] += LOAD(a + i + LANES) * LOAD(b + i + LANES);
    }
    for (; i + LANES <= size; i += LANES) sums[0] += LOAD(a + i) * LOAD(b + i);
    const VEC both = sums[0] + sums[1];
    float sum = 0.0f;
    for (; i < size; i++) sum += a[i] * b[i];
    for (int lane = 0; lane < LANES; lane++) sum += both[lane];
    return sum;
}

static TARGET void NAME(add)(float *y, float a, const float *x, int64_t size) {
    int64_t i = 0;
    for (; i + LANES <= size; i += LANES) STORE(y + i, LOAD(y + i) + LOAD(x + i) * a);
    for (; i < size; i++) y[i] += x[i] * a;
}

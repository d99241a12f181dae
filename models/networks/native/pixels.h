/* Pixels to normalized floats: three channels, so a period of 48 values is a whole number of vectors of any width. */

static TARGET void NAME(standardize)(const uint8_t *pixels, const float *mean, const float *deviation, float *out, int64_t size) {
    enum { PERIOD = 48 };
    float means[PERIOD], deviations[PERIOD];
    for (int k = 0; k < PERIOD; k++) {
        means[k] = mean[k % 3];
        deviations[k] = deviation[k % 3];
    }
    int64_t i = 0;
    for (; i + PERIOD <= size; i += PERIOD) /* vectorized by the compiler */
        for (int k = 0; k < PERIOD; k++) out[i + k] = ((float)pixels[i + k] - means[k]) / deviations[k];
    for (int k = 0; i + k < size; k++) out[i + k] = ((float)pixels[i + k] - means[k]) / deviations[k];
}

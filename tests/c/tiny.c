/*
 * Trains tiny, compiled for batches of 4 rows, on data it makes itself:
 *
 *   tiny ROWS EPOCHS SEED
 *
 * prints the bits of the loss of every epoch, of the parameters and of the predictions.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tiny.h"

enum { MOST = 1024 };

static float x[MOST][2], t[MOST];

/* Multiples of 1/65536 below 1, which f32 holds exactly. */
static float next(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (float)(*seed >> 16) / 65536.0f;
}

static void print(const char *name, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    printf("%s %08" PRIx32 "\n", name, bits);
}

static void *aligned(size_t size)
{
    char *memory = malloc(size + 64);
    if (memory == NULL)
        exit(1);
    return memory + (64 - (uintptr_t)memory % 64) % 64;
}

int main(int argc, char **argv)
{
    int64_t rows = argc == 4 ? strtol(argv[1], NULL, 10) : 0;
    long epoch, epochs = argc == 4 ? strtol(argv[2], NULL, 10) : 0;
    void *state = aligned(TINY_STATE_BYTES), *arena = aligned(TINY_ARENA_BYTES);
    uint32_t seed = 1;
    int64_t k;
    const char *parameters;
    float value;

    if (rows < 4 || rows > MOST || rows % 4 != 0 || tiny_init(state, strtoull(argv[3], NULL, 10)))
        return 1;
    for (k = 0; k < rows; k++) {
        x[k][0] = next(&seed);
        x[k][1] = next(&seed);
        t[k] = 0.5f * (x[k][0] + x[k][1]);
    }
    for (epoch = 0; epoch < epochs; epoch++) {
        double sum = 0.0;
        uint64_t bits;
        if (tiny_fit_b4(state, arena, &x[0][0], t, NULL, rows, &sum))
            return 2;
        memcpy(&bits, &sum, sizeof bits);
        printf("loss %016" PRIx64 "\n", bits);
    }
    parameters = (const char *)state;
    for (k = 0; k < 6; k++) { /* h1.W: 2 x 3 */
        memcpy(&value, parameters + TINY_OFFSET_h1_W + 4 * k, sizeof value);
        print("h1.W", value);
    }
    for (k = 0; k < rows; k += 4) {
        float prediction[4];
        int i;
        if (tiny_infer_b4(state, arena, x[k], prediction))
            return 3;
        for (i = 0; i < 4; i++)
            print("prediction", prediction[i]);
    }
    return 0;
}

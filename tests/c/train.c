/*
 * Trains digits_mlp, compiled for batches of 32 and 4 rows, and predicts with what it saved.
 *
 *   train IMAGES DIGITS ORDER ROWS EPOCHS SEED PARAMETERS
 *
 * IMAGES (f32 [ROWS, 64]), DIGITS (i32 [ROWS]) and ORDER (i64 [EPOCHS, ROWS]) are raw files;
 * PARAMETERS is written, and read again into a second state. Every line of the output is a name
 * and a number in bits, so that nothing is lost to rounding.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "digits_mlp.h"

#define PIXELS 64
#define CLASSES 10

static void check(int good, const char *what)
{
    if (!good) {
        fprintf(stderr, "train: %s\n", what);
        exit(1);
    }
}

/* Memory at a multiple of 64, never freed. */
static void *aligned(size_t size)
{
    char *memory = malloc(size + 64);
    check(memory != NULL, "out of memory");
    return memory + (64 - (uintptr_t)memory % 64) % 64;
}

static void *read_file(const char *path, size_t size)
{
    FILE *file = fopen(path, "rb");
    void *data = aligned(size);
    check(file != NULL, path);
    check(fread(data, 1, size, file) == size && fgetc(file) == EOF, path);
    fclose(file);
    return data;
}

static void write_file(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    check(file != NULL, path);
    check(fwrite(data, 1, size, file) == size, path);
    check(fclose(file) == 0, path);
}

/* One epoch: batches of 32, then of 4. Gives the sum of the losses over the rows. */
static double epoch(void *state, void *arena, const float *images, const int32_t *digits,
                    const int64_t *order, int64_t rows)
{
    double sum = 0.0;
    int64_t large = rows / 32 * 32;
    int code = digits_mlp_fit_b32(state, arena, images, digits, order, large, &sum);
    check(code == DIGITS_MLP_OK, "fit_b32");
    code = digits_mlp_fit_b4(state, arena, images, digits, order + large, rows - large, &sum);
    check(code == DIGITS_MLP_OK, "fit_b4");
    return sum;
}

static void predict(const void *state, void *arena, const float *images, int64_t rows)
{
    static float probs[32 * CLASSES];
    int64_t row = 0;
    while (row < rows) {
        int64_t k, count = rows - row >= 32 ? 32 : 4;
        const float *from = images + row * PIXELS;
        int code = count == 32 ? digits_mlp_infer_b32(state, arena, from, probs)
                               : digits_mlp_infer_b4(state, arena, from, probs);
        check(code == DIGITS_MLP_OK, "infer");
        for (k = 0; k < count * CLASSES; k++) {
            uint32_t bits;
            memcpy(&bits, &probs[k], sizeof bits);
            printf("prob %08" PRIx32 "\n", bits);
        }
        row += count;
    }
}

/* What the header says of wrong calls; none of them may change the state. */
static void refuse(void *state, void *arena, const float *images)
{
    static int32_t wrong[32];
    float loss;
    char *before = aligned(DIGITS_MLP_STATE_BYTES);
    memcpy(before, state, DIGITS_MLP_STATE_BYTES);
    wrong[31] = CLASSES;
    check(digits_mlp_train_step_b32(state, arena, images, wrong, &loss) == DIGITS_MLP_INDEX_RANGE,
          "an index out of range is accepted");
    check(digits_mlp_load(state, images, 1) == DIGITS_MLP_WRONG_SIZE,
          "parameters of a wrong size are accepted");
    check(digits_mlp_init((char *)state + 4, 0) == DIGITS_MLP_BAD_POINTER,
          "a state that is not aligned is accepted");
    check(memcmp(before, state, DIGITS_MLP_STATE_BYTES) == 0, "a refused call wrote");
}

int main(int argc, char **argv)
{
    size_t rows, epochs, k;
    float *images;
    int32_t *digits;
    int64_t *order;
    void *state, *fresh, *arena, *saved;

    check(argc == 8, "expected 7 arguments");
    check(digits_mlp_state_bytes() == DIGITS_MLP_STATE_BYTES
              && digits_mlp_infer_state_bytes() == DIGITS_MLP_INFER_STATE_BYTES
              && digits_mlp_arena_bytes() == DIGITS_MLP_ARENA_BYTES,
          "header and library disagree");
    rows = strtoul(argv[4], NULL, 10);
    epochs = strtoul(argv[5], NULL, 10);
    images = read_file(argv[1], rows * PIXELS * sizeof *images);
    digits = read_file(argv[2], rows * sizeof *digits);
    order = read_file(argv[3], epochs * rows * sizeof *order);
    state = aligned(DIGITS_MLP_STATE_BYTES);
    fresh = aligned(DIGITS_MLP_INFER_STATE_BYTES);
    arena = aligned(DIGITS_MLP_ARENA_BYTES);
    memset(arena, 0xA5, DIGITS_MLP_ARENA_BYTES);

    check(digits_mlp_init(state, strtoull(argv[6], NULL, 10)) == DIGITS_MLP_OK, "init");
    for (k = 0; k < epochs; k++) {
        double sum = epoch(state, arena, images, digits, order + k * rows, (int64_t)rows);
        uint64_t bits;
        memcpy(&bits, &sum, sizeof bits);
        printf("loss %016" PRIx64 "\n", bits);
    }
    refuse(state, arena, images);

    write_file(argv[7], (char *)state + DIGITS_MLP_PARAMETERS_OFFSET, DIGITS_MLP_PARAMETERS_BYTES);
    saved = read_file(argv[7], DIGITS_MLP_PARAMETERS_BYTES);
    memset(fresh, 0, DIGITS_MLP_INFER_STATE_BYTES);
    check(digits_mlp_load(fresh, saved, DIGITS_MLP_PARAMETERS_BYTES) == DIGITS_MLP_OK, "load");
    predict(fresh, arena, images, (int64_t)rows);
    return 0;
}

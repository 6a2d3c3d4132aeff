/*
 * Trains digits_mlp (batch 32) on threads of its own: threads COUNT STEPS ROUNDS.
 *
 * Prints the losses and a digest of the state in bits; every ROUND begins anew with a new pool.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "digits_mlp.h"

#define MOST 8

struct worker {
    pthread_t thread;
    void *pool;
    int64_t id;
    int code;
};

static void check(int good, const char *what)
{
    if (!good) {
        fprintf(stderr, "threads: %s\n", what);
        exit(1);
    }
}

static void *aligned(size_t size)
{
    char *memory = malloc(size + 64);
    check(memory != NULL, "out of memory");
    return memory + (64 - (uintptr_t)memory % 64) % 64;
}

static void *work(void *given)
{
    struct worker *me = given;
    me->code = digits_mlp_worker(me->pool, me->id);
    return NULL;
}

static void train(void *pool, void *state, void *arena, int64_t steps)
{
    static float images[32 * 64];
    static int32_t digits[32];
    double sum = 0.0;
    uint64_t bits;
    for (int n = 0; n < 32 * 64; n++)
        images[n] = (float)(n * 7919 % 1000) / 1000.0f;
    for (int n = 0; n < 32; n++)
        digits[n] = n % 10;
    for (int64_t n = 0; n < steps; n++) {
        float loss;
        uint32_t low;
        check(digits_mlp_parallel_train_step_b32(pool, state, arena, images, digits, &loss)
                  == DIGITS_MLP_OK, "train_step");
        memcpy(&low, &loss, sizeof low);
        printf("loss %" PRIx32 "\n", low);
    }
    check(digits_mlp_parallel_fit_b32(pool, state, arena, images, digits, NULL, 32, &sum)
              == DIGITS_MLP_OK, "fit");
    memcpy(&bits, &sum, sizeof bits);
    printf("fit %" PRIx64 "\n", bits);
    digits[3] = 10;
    check(digits_mlp_parallel_fit_b32(pool, state, arena, images, digits, NULL, 32, &sum)
              == DIGITS_MLP_INDEX_RANGE, "an index out of range");
    digits[3] = 3;
}

int main(int count, char **words)
{
    check(count == 4, "expected COUNT STEPS ROUNDS");
    int64_t threads = atoll(words[1]), steps = atoll(words[2]), rounds = atoll(words[3]);
    void *state = aligned(DIGITS_MLP_STATE_BYTES), *arena = aligned(DIGITS_MLP_ARENA_BYTES);
    void *pool = aligned(digits_mlp_pool_bytes());
    struct worker workers[MOST];
    check(digits_mlp_pool_bytes() == DIGITS_MLP_POOL_BYTES, "pool_bytes");
    check(digits_mlp_pool(NULL, 2) == DIGITS_MLP_BAD_POINTER, "no pool");
    check(digits_mlp_pool((char *)pool + 8, 2) == DIGITS_MLP_BAD_POINTER, "a crooked pool");
    check(digits_mlp_pool(pool, 0) == DIGITS_MLP_BAD_THREADS, "no threads");
    check(digits_mlp_pool(pool, 257) == DIGITS_MLP_BAD_THREADS, "too many threads");
    while (rounds-- > 0) {
        check(digits_mlp_pool(pool, threads) == DIGITS_MLP_OK, "pool");
        check(digits_mlp_worker(pool, 0) == DIGITS_MLP_BAD_THREADS, "worker 0");
        check(digits_mlp_worker(pool, threads) == DIGITS_MLP_BAD_THREADS, "one worker too many");
        for (int64_t n = 1; n < threads; n++) {
            workers[n].pool = pool;
            workers[n].id = n;
            check(pthread_create(&workers[n].thread, NULL, work, &workers[n]) == 0, "thread");
        }
        check(digits_mlp_init(state, 42) == DIGITS_MLP_OK, "init");
        train(pool, state, arena, steps);
        check(digits_mlp_pool_stop(pool) == DIGITS_MLP_OK, "stop");
        for (int64_t n = 1; n < threads; n++) {
            check(pthread_join(workers[n].thread, NULL) == 0, "join");
            check(workers[n].code == DIGITS_MLP_OK, "the worker's code");
        }
        for (size_t n = 0; n < DIGITS_MLP_STATE_BYTES; n += 4) {
            uint32_t word;
            memcpy(&word, (char *)state + n, sizeof word);
            printf("state %" PRIx32 "\n", word);
        }
    }
    return 0;
}

/* Threads are those of torch's own OpenMP runtime: a second pool would compete with it for the cores. */
#include "layers.h"

typedef void (*team_starter)(void (*body)(void *), void *context, unsigned threads, unsigned flags);
static team_starter start_team; /* GOMP_parallel, part of the binary interface of GCC's and LLVM's runtimes */

void effnet_use_team(void *gomp_parallel) { start_team = (team_starter)gomp_parallel; }

struct queue {
    void (*body)(void *context, int64_t task);
    void *context;
    int64_t tasks, next;
};

static void take_tasks(void *argument) {
    struct queue *queue = argument;
    for (int64_t task; (task = __atomic_fetch_add(&queue->next, 1, __ATOMIC_RELAXED)) < queue->tasks;)
        queue->body(queue->context, task);
}

void run_tasks(void (*body)(void *context, int64_t task), void *context, int64_t tasks, int threads) {
    struct queue queue = {body, context, tasks, 0};
    if (threads > tasks) threads = (int)tasks;
    if (threads > 1 && start_team)
        start_team(take_tasks, &queue, (unsigned)threads, 0);
    else
        take_tasks(&queue);
}

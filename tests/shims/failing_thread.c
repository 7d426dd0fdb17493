/* A limit of threads (pids.max, ulimit -u): the FVP_SHIM_THREAD-th thread of the process, counted from
 * 1, cannot be had, nor can any after it with FVP_SHIM_THREADS_AFTER=1. How many were asked for is
 * written to the file FVP_SHIM_THREAD_COUNT when the process ends. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

static atomic_int asked;

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*), void* argument) {
  static int (*real)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  if (real == NULL) *(void**)&real = dlsym(RTLD_NEXT, "pthread_create");
  const char* first = getenv("FVP_SHIM_THREAD");
  const int failing = first != NULL ? atoi(first) : 0;
  const int number = atomic_fetch_add(&asked, 1) + 1;
  const int and_after = getenv("FVP_SHIM_THREADS_AFTER") != NULL;
  if (failing > 0 && (number == failing || (and_after && number > failing))) return EAGAIN;
  return real(thread, attributes, start, argument);
}

__attribute__((destructor)) static void tell(void) {
  const char* path = getenv("FVP_SHIM_THREAD_COUNT");
  FILE* out = path != NULL ? fopen(path, "w") : NULL;
  if (out == NULL) return;
  fprintf(out, "%d\n", atomic_load(&asked));
  fclose(out);
}

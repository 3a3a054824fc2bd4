// How long calls of traced functions hold the scheduler that they run on: by the wall's clock, and how much of that the thread had a
// processor. A tracer as a native library (`erl_tracer`): it is called in that thread itself, and nothing is sent.
//
//   call ──► open (of this thread) ──► return_from, or out: the process goes on elsewhere ──► seen
//
// A thread that gives its processor away by itself waits: for a lock, or for memory. One that has it taken away doesn't.

#define _GNU_SOURCE
#include <erl_nif.h>
#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { FUNCTIONS_MAX = 256, LONG_NS = 1000 * 1000 };

typedef struct {
  ERL_NIF_TERM module, function;
  unsigned arity;
} mfa;

// Of one function, nanoseconds. `held`: what was not the operating system's doing.
typedef struct {
  mfa what;
  long calls, wall, held, processor, walls_over, held_over, waits_over;
} seen;

typedef struct {
  long wall, processor, waits;
} point;

static ERL_NIF_TERM trace_atom, ok_atom, call_atom, return_atom, out_atom;
static ErlNifMutex *lock;
static seen table[FUNCTIONS_MAX];
static int functions;

static _Thread_local struct {
  bool is;
  mfa what;
  point since;
} open;

static long now(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return time.tv_sec * 1000000000L + time.tv_nsec;
}

static point here(void) {
  struct rusage usage;
  getrusage(RUSAGE_THREAD, &usage);
  return (point){now(CLOCK_MONOTONIC), now(CLOCK_THREAD_CPUTIME_ID), usage.ru_nvcsw};
}

static seen *of(mfa what) {
  for (int i = 0; i < functions; i++)
    if (table[i].what.module == what.module && table[i].what.function == what.function &&
        table[i].what.arity == what.arity)
      return &table[i];
  if (functions == FUNCTIONS_MAX) return NULL;
  table[functions] = (seen){.what = what};
  return &table[functions++];
}

static void close_open(void) {
  point end = here();
  open.is = false;
  long wall = end.wall - open.since.wall, processor = end.processor - open.since.processor;
  bool waited = end.waits > open.since.waits;
  long held = waited ? wall : processor;
  enif_mutex_lock(lock);
  seen *seen = of(open.what);
  if (seen) {
    seen->calls++;
    seen->walls_over += wall > LONG_NS;
    seen->held_over += held > LONG_NS;
    seen->waits_over += waited && held > LONG_NS;
    if (wall > seen->wall) seen->wall = wall;
    if (held > seen->held) seen->held = held;
    if (processor > seen->processor) seen->processor = processor;
  }
  enif_mutex_unlock(lock);
}

static ERL_NIF_TERM enabled(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) { return trace_atom; }

static ERL_NIF_TERM trace(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
  // Only one of ours can be open in a thread: what we trace calls none of the others.
  if (open.is && (argv[0] == return_atom || argv[0] == out_atom)) {
    close_open();
  } else if (argv[0] == call_atom) {
    const ERL_NIF_TERM *term;
    int elements;
    if (enif_get_tuple(env, argv[3], &elements, &term) && elements == 3 &&
        enif_get_list_length(env, term[2], &open.what.arity)) {
      open.what.module = term[0];
      open.what.function = term[1];
      open.is = true;
      open.since = here();
    }
  }
  return ok_atom;
}

// What was seen since the last time: `[{module, function, arity, [calls, wall, held, processor, walls_over, held_over, waits_over]}]`.
static ERL_NIF_TERM take(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[]) {
  ERL_NIF_TERM list = enif_make_list(env, 0);
  enif_mutex_lock(lock);
  for (int i = 0; i < functions; i++) {
    const seen *seen = &table[i];
    long values[] = {seen->calls,      seen->wall,      seen->held,      seen->processor,
                     seen->walls_over, seen->held_over, seen->waits_over};
    ERL_NIF_TERM terms[7];
    for (int j = 0; j < 7; j++) terms[j] = enif_make_long(env, values[j]);
    list = enif_make_list_cell(env,
                               enif_make_tuple4(env, seen->what.module, seen->what.function,
                                                enif_make_uint(env, seen->what.arity),
                                                enif_make_list_from_array(env, terms, 7)),
                               list);
  }
  functions = 0;
  enif_mutex_unlock(lock);
  return list;
}

static int load(ErlNifEnv *env, void **data, ERL_NIF_TERM info) {
  trace_atom = enif_make_atom(env, "trace");
  ok_atom = enif_make_atom(env, "ok");
  call_atom = enif_make_atom(env, "call");
  return_atom = enif_make_atom(env, "return_from");
  out_atom = enif_make_atom(env, "out");
  lock = enif_mutex_create("bench_tracer");
  return lock == NULL;
}

static ErlNifFunc functions_of[] = {{"enabled", 3, enabled, 0}, {"trace", 5, trace, 0}, {"take", 0, take, 0}};

ERL_NIF_INIT(Elixir.Bench.Tracer, functions_of, load, NULL, NULL, NULL)

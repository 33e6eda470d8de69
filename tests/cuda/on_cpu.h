// What a CUDA kernel needs to run on a CPU: a g++ -include of this file stands in for the compiler's own declarations.
//
// Every CUDA thread of a block is a fiber with a stack of its own. It runs until it meets a barrier or an exchange within its warp, and
// goes on when all others have met it too. The order in which fibers run is chosen: forward, backward, or shuffled, so a missing barrier
// shows as a wrong result. Shared memory begins as NaN and ends where the launch said, which the address sanitizer checks.
#pragma once
#define ON_CPU 1
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__ static
#define KERNEL(threads, name) extern "C" void name

using std::max;
using std::min;
struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};
typedef uint3 dim3;
static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline float __uint_as_float(unsigned bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
inline unsigned __float_as_uint(float value) {
  unsigned bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float __fdividef(float a, float b) { return a / b; }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}

namespace on_cpu {

constexpr int WARP = 32, STACK = 128 << 10;
enum State { RUNS, WAITS_FOR_BLOCK, WAITS_FOR_WARP, DONE };

struct Fiber {
  ucontext_t context;
#ifndef __SANITIZE_ADDRESS__
  jmp_buf where;
  bool started;
#endif
  uint3 index;
  State state;
  std::unique_ptr<char[]> stack;
};

struct Message {  // what a lane gives to the others of its warp; two in turn, so that one barrier an exchange will do
  double words[8];
};

static std::vector<Fiber> fibers;
static Fiber* current;
static ucontext_t scheduler;
static jmp_buf back;
static std::vector<Message> messages[2];
static std::vector<unsigned> exchanges;  // how many each thread has taken part in
static std::unique_ptr<float[]> shared;
static void (*run_kernel)(void*);
static void* kernel_arguments;

inline int number() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }

// Stacks are switched with setjmp, which is quick, but for the first time and under the address sanitizer, which wants to be asked.
inline void leave(Fiber& fiber) {
#ifdef __SANITIZE_ADDRESS__
  swapcontext(&fiber.context, &scheduler);
#else
  if (!_setjmp(fiber.where)) _longjmp(back, 1);
#endif
}

inline void entry() {
  run_kernel(kernel_arguments);
  current->state = DONE;
#ifdef __SANITIZE_ADDRESS__
  swapcontext(&current->context, &scheduler);
#else
  _longjmp(back, 1);
#endif
}

inline void enter(Fiber& fiber) {
  current = &fiber;
  threadIdx = fiber.index;
#ifdef __SANITIZE_ADDRESS__
  swapcontext(&scheduler, &fiber.context);
#else
  if (_setjmp(back)) return;
  if (!fiber.started) {
    fiber.started = true;
    setcontext(&fiber.context);
  }
  _longjmp(fiber.where, 1);
#endif
}

inline void wait(State state) {
  Fiber& fiber = *current;
  fiber.state = state;
  leave(fiber);
  threadIdx = fiber.index;
}

// Those who wait go on when all have come who still can.
inline bool release(int from, int to, State waiting) {
  int waits = 0, done = 0;
  for (int i = from; i < to; ++i) {
    waits += fibers[i].state == waiting;
    done += fibers[i].state == DONE;
  }
  if (!waits || waits + done < to - from) return false;
  for (int i = from; i < to; ++i)
    if (fibers[i].state == waiting) fibers[i].state = RUNS;
  return true;
}

// order: 0 forward, -1 backward, else the seed of a shuffle
inline void run_block(int order) {
  const int count = blockDim.x * blockDim.y * blockDim.z;
  if (static_cast<int>(fibers.size()) < count) fibers.resize(count);
  messages[0].resize(std::max<size_t>(messages[0].size(), count));
  messages[1].resize(messages[0].size());
  exchanges.assign(count, 0);
  for (int i = 0; i < count; ++i) {
    Fiber& fiber = fibers[i];
    if (!fiber.stack) fiber.stack.reset(new char[STACK]);
    fiber.state = RUNS;
#ifndef __SANITIZE_ADDRESS__
    fiber.started = false;
#endif
    fiber.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, entry, 0);
  }
  // One warp at a time goes as far as it can get without the others, all the way to a barrier of the block: the furthest ahead that
  // the rules allow. Shuffled, another warp may take over wherever lanes have exchanged something.
  std::mt19937 random(order > 0 ? order : 1);
  std::vector<int> lanes(WARP), ready;
  for (;;) {
    ready.clear();
    for (int first = 0; first < count; first += WARP)
      for (int i = first; i < std::min(first + WARP, count); ++i)
        if (fibers[i].state == RUNS) {
          ready.push_back(first);
          break;
        }
    if (ready.empty()) {
      if (release(0, count, WAITS_FOR_BLOCK)) continue;
      if (std::all_of(fibers.begin(), fibers.begin() + count, [](const Fiber& f) { return f.state == DONE; })) return;
      fprintf(stderr, "deadlock: in block (%u, %u, %u) not all threads come to the same barrier\n", blockIdx.x, blockIdx.y, blockIdx.z);
      abort();
    }
    const int first = order > 0 ? ready[random() % ready.size()] : order < 0 ? ready.back() : ready.front();
    const int size = std::min(WARP, count - first);
    lanes.resize(size);
    for (int i = 0; i < size; ++i) lanes[i] = order < 0 ? first + size - 1 - i : first + i;
    if (order > 0) std::shuffle(lanes.begin(), lanes.end(), random);
    for (int i : lanes)
      if (fibers[i].state == RUNS) enter(fibers[i]);
    release(first, first + size, WAITS_FOR_WARP);
  }
}

// Give a message to the warp, wait for the others, and look at all of theirs.
template <class T>
inline const Message* exchange(const T& mine) {
  static_assert(sizeof(T) <= sizeof(Message), "too long for a message");
  const int me = number(), side = exchanges[me]++ % 2;
  memcpy(&messages[side][me], &mine, sizeof mine);
  wait(WAITS_FOR_WARP);
  return &messages[side][me / WARP * WARP];
}

template <class T>
inline T read(const Message& message) {
  T value;
  memcpy(&value, &message, sizeof value);
  return value;
}

// To the nearest number with 10 bits after the point, ties away from zero (PTX ISA, cvt.rna.tf32.f32).
inline float rounded_to_tf32(float x) {
  const unsigned bits = __float_as_uint(x);
  if ((bits & 0x7f800000u) == 0x7f800000u) return x;
  return __uint_as_float((bits + 0x1000u) & ~0x1fffu);
}

struct Fragments {
  float a[4], b[2];
};

inline void tensor_core_product(float (&d)[4], const float (&a)[4], const float (&b)[2]) {
  Fragments mine;
  for (int i = 0; i < 4; ++i) mine.a[i] = __uint_as_float(__float_as_uint(a[i]) & ~0x1fffu);  // the other bits are not looked at
  for (int i = 0; i < 2; ++i) mine.b[i] = __uint_as_float(__float_as_uint(b[i]) & ~0x1fffu);
  const Message* warp = exchange(mine);
  const int lane = number() % WARP, g = lane / 4, t = lane % 4;
  for (int k = 0; k < 8; ++k)
    for (int row = 0; row < 2; ++row) {
      const float left = read<Fragments>(warp[4 * g + k % 4]).a[row + 2 * (k / 4)];
      for (int column = 0; column < 2; ++column)
        d[2 * row + column] += left * read<Fragments>(warp[4 * (2 * t + column) + k % 4]).b[k / 4];
    }
}

template <class F>
struct Signature;
template <class... A>
struct Signature<void (*)(A...)> {
  template <size_t... I>
  static void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*reinterpret_cast<std::remove_cv_t<A>*>(arguments[I])...);
  }
  static constexpr size_t sizes[] = {sizeof(A)..., 0};
  static constexpr int count = sizeof...(A);
};

template <class F>
struct Call {
  F kernel;
  void** arguments;
  static void run(void* self) {
    Call& call = *static_cast<Call*>(self);
    Signature<F>::call(call.kernel, call.arguments, std::make_index_sequence<Signature<F>::count>{});
  }
};

// Returns the place of the first argument whose size is wrong, or -1 after the run; -2 when their number is.
template <class F>
inline int launch(F kernel, const unsigned* grid, const unsigned* block, size_t shared_bytes, void** arguments, const size_t* sizes,
                  int count, int order) {
  if (count != Signature<F>::count) return -2;
  for (int i = 0; i < count; ++i)
    if (sizes[i] != Signature<F>::sizes[i]) return i;
  Call<F> call = {kernel, arguments};
  run_kernel = Call<F>::run;
  kernel_arguments = &call;
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {block[0], block[1], block[2]};
  const size_t floats = (shared_bytes + 3) / 4;
  std::vector<unsigned> blocks(grid[0] * grid[1] * grid[2]);
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = order < 0 ? blocks.size() - 1 - i : i;
  if (order > 0) std::shuffle(blocks.begin(), blocks.end(), std::mt19937(order));
  for (unsigned i : blocks) {
    blockIdx = {i % grid[0], i / grid[0] % grid[1], i / grid[0] / grid[1]};
    shared.reset(new float[floats]);
    std::fill_n(shared.get(), floats, __uint_as_float(0x7fc00000u));
    run_block(order);
  }
  shared.reset();
  return -1;
}

}  // namespace on_cpu

inline float* shared_memory() { return on_cpu::shared.get(); }
inline void __syncthreads() { on_cpu::wait(on_cpu::WAITS_FOR_BLOCK); }
template <class T>
inline T __shfl_xor_sync(unsigned, T value, int mask) {
  return on_cpu::read<T>(on_cpu::exchange(value)[(on_cpu::number() % on_cpu::WARP) ^ mask]);
}

#define EXPORT(name)                                                                                                             \
  extern "C" int launch_##name(const unsigned* grid, const unsigned* block, size_t shared_bytes, void** arguments,               \
                               const size_t* sizes, int count, int order) {                                                      \
    return on_cpu::launch(&name, grid, block, shared_bytes, arguments, sizes, count, order);                                     \
  }

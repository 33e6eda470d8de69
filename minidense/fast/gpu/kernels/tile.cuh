// What the kernels share: how feature maps are stored, products of small tiles in shared memory, sums over a block.
//
// Feature maps lie channel by channel: row c holds the N·H·W pixels of channel c of the whole batch. A dense block then grows at its
// end, a layer reads the front part, and the statistics of a channel are those of a row. The number of pixels divides by four and rows
// begin at multiples of 16 bytes, so four pixels travel at once and lie inside or outside together.
//
// Compiled with
//   TENSOR_CORES  1: products of TF32 numbers (10 bits after the point) added up in float32, from sm_80 on; 0: all in float32
//   BRAIN_FLOAT   1: feature maps and their gradients are stored as bfloat16; 0: as float32
#pragma once

#ifndef ON_CPU  // where the same source runs on a CPU, these and what CUDA brings along are defined there
#define KERNEL(threads, name) extern "C" __global__ void __launch_bounds__(threads, 1) name

// The shared memory that the launch gives to a block.
__device__ inline float* shared_memory() {
  extern __shared__ __align__(16) float space[];
  return space;
}
#endif

#if TENSOR_CORES && (defined(ON_CPU) || __CUDA_ARCH__ >= 800)
constexpr bool tensor_cores = true;
#else
constexpr bool tensor_cores = false;
#endif

constexpr int WARPS_ACROSS = 4;  // warps of a block side by side along the columns of a product

__device__ inline int lane() { return threadIdx.x % 32; }
__device__ inline int warp() { return threadIdx.x / 32; }
__device__ inline float infinity() { return __uint_as_float(0x7f800000u); }

// A row length in shared memory, at least `length`, that is `apart` more than a multiple of its 32 banks.
__device__ inline int padded(int length, int apart) { return (length + 31 - apart) / 32 * 32 + apart; }

// -- feature maps ------------------------------------------------------------------------------------------------------

#if BRAIN_FLOAT
struct alignas(2) Stored {
  unsigned short bits;
};
struct alignas(4) Stored2 {
  Stored x, y;
};
struct alignas(8) Stored4 {
  Stored x, y, z, w;
};
__device__ inline float widened(Stored value) { return __uint_as_float(static_cast<unsigned>(value.bits) << 16); }
__device__ inline Stored narrowed(float value) {  // to the nearest, ties to even
  const unsigned bits = __float_as_uint(value);
  const unsigned rounded = value != value ? 0x7fffffffu : bits + 0x7fffu + ((bits >> 16) & 1u);
  return Stored{static_cast<unsigned short>(rounded >> 16)};
}
#else
typedef float Stored;
typedef float2 Stored2;
typedef float4 Stored4;
__device__ inline float widened(Stored value) { return value; }
__device__ inline Stored narrowed(float value) { return value; }
#endif

struct Four {
  float v[4];
};

// Pixels p … p + 3 of a row, p divisible by four and possibly outside; zeros outside.
__device__ inline Four load4(const Stored* row, int p, int pixels) {
  Four four = {{0.f, 0.f, 0.f, 0.f}};
  if (p >= 0 && p < pixels) {
    const Stored4 all = *reinterpret_cast<const Stored4*>(row + p);
    four = {{widened(all.x), widened(all.y), widened(all.z), widened(all.w)}};
  }
  return four;
}

__device__ inline void store4(Stored* row, int p, Four four) {
  Stored4 all;
  all.x = narrowed(four.v[0]);
  all.y = narrowed(four.v[1]);
  all.z = narrowed(four.v[2]);
  all.w = narrowed(four.v[3]);
  *reinterpret_cast<Stored4*>(row + p) = all;
}

// Pixels p and p + 1, p even.
__device__ inline float2 load2(const Stored* row, int p) {
  const Stored2 both = *reinterpret_cast<const Stored2*>(row + p);
  return make_float2(widened(both.x), widened(both.y));
}

__device__ inline void store2(Stored* row, int p, float2 values) {
  Stored2 both;
  both.x = narrowed(values.x);
  both.y = narrowed(values.y);
  *reinterpret_cast<Stored2*>(row + p) = both;
}

// load(e) for every e below count and then put(e, what was loaded), BATCH at a time: as many reads are under way before the first is
// waited for.
template <int BATCH, class Load, class Put>
__device__ inline void fetch(int count, Load load, Put put) {
  for (int e = threadIdx.x; e < count; e += BATCH * blockDim.x) {
    decltype(load(0)) found[BATCH];
#pragma unroll
    for (int i = 0; i < BATCH; ++i) found[i] = load(min(e + i * static_cast<int>(blockDim.x), count - 1));
#pragma unroll
    for (int i = 0; i < BATCH; ++i)
      if (e + i * static_cast<int>(blockDim.x) < count) put(e + i * blockDim.x, found[i]);
  }
}

// -- batch norm and ReLU, on the way in and out ------------------------------------------------------------------------

// A norm of one channel, folded: x̂ = (x − mean)·inv_std and relu(BN(x)) = max((x − mean)·scale + shift, 0), scale = γ·inv_std.
struct alignas(16) Fold {
  float mean, scale, shift, inv_std;
};

__device__ inline float normalised(float x, Fold fold) { return fmaf(x - fold.mean, fold.scale, fold.shift); }
__device__ inline float rectified(float x) { return x < 0.f ? 0.f : x; }  // NaN stays NaN: divergence must show

// What every norm over a channel takes from its gradient: dx loses level + x̂·slope, sums over all layers that read the channel.
struct alignas(8) Debt {
  float level, slope;
};

__device__ inline float settled(float dx, float x, Fold fold, Debt debt) {
  return dx - debt.level - (x - fold.mean) * fold.inv_std * debt.slope;
}

// -- products ----------------------------------------------------------------------------------------------------------

// A number as the product will take it; rounded once here, not on every use.
__device__ inline float operand(float x) {
#ifdef ON_CPU
  return tensor_cores ? on_cpu::rounded_to_tf32(x) : x;
#elif TENSOR_CORES && __CUDA_ARCH__ >= 800
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return __uint_as_float(bits);
#else
  return x;
#endif
}

// Four of them into shared memory, at a place divisible by four.
__device__ inline void put4(float* place, Four four) {
  *reinterpret_cast<float4*>(place) =
      make_float4(operand(four.v[0]), operand(four.v[1]), operand(four.v[2]), operand(four.v[3]));
}

// d += A·B on the tensor cores, A 16×8 and B 8×8 spread over the warp (PTX ISA, "Matrix fragments for mma.m16n8k8", .tf32):
// with g = lane/4 and t = lane%4, a lane holds A[g, t], A[g + 8, t], A[g, t + 4], A[g + 8, t + 4]; B[t, g], B[t + 4, g];
// D[g, 2t], D[g, 2t + 1], D[g + 8, 2t], D[g + 8, 2t + 1].
__device__ inline void tensor_core_product(float (&d)[4], const float (&a)[4], const float (&b)[2]) {
#ifdef ON_CPU
  on_cpu::tensor_core_product(d, a, b);
#elif TENSOR_CORES && __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])), "r"(__float_as_uint(a[3])),
                 "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
#endif
}

constexpr int COLUMNS = tensor_cores ? 1 : 2;  // columns of B, of each 8, that a lane looks at

__device__ inline int column_of_lane(int j) { return tensor_cores ? lane() / 4 : lane() % 4 * 2 + j; }

// acc += A·B for a warp's tile of 16·MT rows and 8·NT columns, to a depth of 8. a(m, k) and b(k, nt, j) give operands, the latter of
// column 8·nt + column_of_lane(j). Either way a lane ends up with the elements of D that are named above.
template <int MT, int NT, class A, class B>
__device__ inline void multiply(float (&acc)[MT][NT][4], A a, B b) {
  const int g = lane() / 4, t = lane() % 4;
  if constexpr (tensor_cores) {
    float left[MT][4];
#pragma unroll
    for (int mt = 0; mt < MT; ++mt) {
      left[mt][0] = a(16 * mt + g, t);
      left[mt][1] = a(16 * mt + g + 8, t);
      left[mt][2] = a(16 * mt + g, t + 4);
      left[mt][3] = a(16 * mt + g + 8, t + 4);
    }
#pragma unroll
    for (int nt = 0; nt < NT; ++nt) {
      const float right[2] = {b(t, nt, 0), b(t + 4, nt, 0)};
#pragma unroll
      for (int mt = 0; mt < MT; ++mt) tensor_core_product(acc[mt][nt], left[mt], right);
    }
  } else {
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      float left[MT][2];
#pragma unroll
      for (int mt = 0; mt < MT; ++mt) {
        left[mt][0] = a(16 * mt + g, k);
        left[mt][1] = a(16 * mt + g + 8, k);
      }
#pragma unroll
      for (int nt = 0; nt < NT; ++nt) {
        const float right[2] = {b(k, nt, 0), b(k, nt, COLUMNS - 1)};
#pragma unroll
        for (int mt = 0; mt < MT; ++mt)
#pragma unroll
          for (int e = 0; e < 4; ++e) acc[mt][nt][e] = fmaf(left[mt][e / 2], right[e % 2], acc[mt][nt][e]);
      }
    }
  }
}

// Where a lane's element pair (mt, half) of an accumulator lies: the row in the warp's tile, and its even column for each nt.
__device__ inline int row_of(int mt, int half) { return 16 * mt + 8 * half + lane() / 4; }
__device__ inline int column_of(int nt) { return 8 * nt + lane() % 4 * 2; }

// -- sums --------------------------------------------------------------------------------------------------------------

// Sums over a whole warp, in one fixed order; every lane gets them.
template <class T>
__device__ inline T sum_over_warp(T value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}

// values[mt][half] becomes its sum over all columns of the block, in each lane that holds a part of the row.
// space: WARPS_ACROSS·rows floats of shared memory, rows = 16·MT·(blockDim.x/128). Ends and begins with a barrier.
template <int MT>
__device__ inline void sum_over_columns(float (&values)[MT][2], float* space) {
  const int across = warp() % WARPS_ACROSS, down = warp() / WARPS_ACROSS;
  const int rows = 16 * MT * (blockDim.x / (32 * WARPS_ACROSS));
  __syncthreads();
#pragma unroll
  for (int mt = 0; mt < MT; ++mt)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float value = values[mt][half];
      value += __shfl_xor_sync(0xffffffffu, value, 1);
      value += __shfl_xor_sync(0xffffffffu, value, 2);
      if (lane() % 4 == 0) space[across * rows + 16 * MT * down + row_of(mt, half)] = value;
    }
  __syncthreads();
#pragma unroll
  for (int mt = 0; mt < MT; ++mt)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float* row = space + 16 * MT * down + row_of(mt, half);
      values[mt][half] = (row[0] + row[rows]) + (row[2 * rows] + row[3 * rows]);
    }
}

// -- what becomes of a product -----------------------------------------------------------------------------------------

// What a block has found of each of its rows, two numbers: into pairs[row·tiles + tile].
template <int MT>
__device__ inline void keep_pairs(const float (&x)[MT][2], const float (&y)[MT][2], float2* pairs, int first, int rows) {
#pragma unroll
  for (int mt = 0; mt < MT; ++mt)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first + 16 * MT * (warp() / WARPS_ACROSS) + row_of(mt, half);
      if (warp() % WARPS_ACROSS == 0 && lane() % 4 == 0 && row < rows)
        pairs[static_cast<size_t>(row) * gridDim.x + blockIdx.x] = make_float2(x[mt][half], y[mt][half]);
    }
}

// The convolution's result: out[first + row][p0 + column], and where `moments` is given, for each row the mean and Σ (x − mean)² of
// these pixels, at moments[row·tiles + tile] (Chan, Golub & LeVeque 1983 say how they merge).
template <int MT, int NT>
__device__ inline void keep_result(float (&acc)[MT][NT][4], Stored* out, float2* moments, int first, int rows, int p0, int pixels,
                                   float* space) {
  const int down = warp() / WARPS_ACROSS, left = warp() % WARPS_ACROSS * 8 * NT;
  const float share = __fdividef(1.f, static_cast<float>(min(WARPS_ACROSS * 8 * NT, pixels - p0)));
  float sums[MT][2] = {};
#pragma unroll
  for (int mt = 0; mt < MT; ++mt)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first + 16 * MT * down + row_of(mt, half);
#pragma unroll
      for (int nt = 0; nt < NT; ++nt) {
        const int p = p0 + left + column_of(nt);
        // From here on what was stored counts, not what was computed.
        float2 y = make_float2(widened(narrowed(acc[mt][nt][2 * half])), widened(narrowed(acc[mt][nt][2 * half + 1])));
        if (row < rows && p < pixels)
          store2(out + static_cast<size_t>(row) * pixels, p, y);
        else
          y = make_float2(0.f, 0.f);
        acc[mt][nt][2 * half] = y.x;
        acc[mt][nt][2 * half + 1] = y.y;
        sums[mt][half] += y.x + y.y;
      }
    }
  if (moments == nullptr) return;
  sum_over_columns<MT>(sums, space);
  float mean[MT][2];
#pragma unroll
  for (int mt = 0; mt < MT; ++mt)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      mean[mt][half] = share * sums[mt][half];
      sums[mt][half] = 0.f;
#pragma unroll
      for (int nt = 0; nt < NT; ++nt)
#pragma unroll
        for (int e = 0; e < 2; ++e)
          if (p0 + left + column_of(nt) < pixels) {
            const float apart = acc[mt][nt][2 * half + e] - mean[mt][half];
            sums[mt][half] = fmaf(apart, apart, sums[mt][half]);
          }
    }
  sum_over_columns<MT>(sums, space);
  keep_pairs<MT>(mean, sums, moments, first, rows);
}

// The gradient of a convolution's input h, brought back through the ReLU and, but for what the norm takes from it, through the norm
// before: h = relu(BN(x)). Where `fold` is null, h is x itself.
//   dx       gets dL/dh where x is active and 0 elsewhere; times the norm's scale where `scaled`; added to where `added`
//   sums     for each row Σ and Σ·x̂ of the unscaled gradient over these pixels, at sums[row·tiles + tile]
template <int MT, int NT>
__device__ inline void keep_gradient(float (&acc)[MT][NT][4], const Stored* x, const Fold* fold, Stored* dx, float2* sums, int scaled,
                                     int added, int first, int rows, int p0, int pixels, float* space) {
  const int down = warp() / WARPS_ACROSS, left = warp() % WARPS_ACROSS * 8 * NT;
  float sum[MT][2] = {}, along[MT][2] = {};
#pragma unroll
  for (int mt = 0; mt < MT; ++mt)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first + 16 * MT * down + row_of(mt, half);
      if (row >= rows) continue;
      const Fold f = fold == nullptr ? Fold{0.f, 1.f, 0.f, 1.f} : fold[row];
      const float factor = scaled ? f.scale : 1.f;
      const size_t offset = static_cast<size_t>(row) * pixels;
      float2 here[NT], before[NT];  // all that is read is under way before the first is used
      if (fold != nullptr) {
#pragma unroll
        for (int nt = 0; nt < NT; ++nt) here[nt] = load2(x + offset, min(p0 + left + column_of(nt), pixels - 2));
      }
      if (added) {
#pragma unroll
        for (int nt = 0; nt < NT; ++nt) before[nt] = load2(dx + offset, min(p0 + left + column_of(nt), pixels - 2));
      }
#pragma unroll
      for (int nt = 0; nt < NT; ++nt) {
        const int p = p0 + left + column_of(nt);
        float2 dh = make_float2(acc[mt][nt][2 * half], acc[mt][nt][2 * half + 1]);
        if (fold != nullptr) {
          dh.x = normalised(here[nt].x, f) > 0.f && p < pixels ? dh.x : 0.f;
          dh.y = normalised(here[nt].y, f) > 0.f && p < pixels ? dh.y : 0.f;
          sum[mt][half] += dh.x + dh.y;
          along[mt][half] += dh.x * ((here[nt].x - f.mean) * f.inv_std) + dh.y * ((here[nt].y - f.mean) * f.inv_std);
        }
        dh = make_float2(factor * dh.x, factor * dh.y);
        if (added) dh = make_float2(before[nt].x + dh.x, before[nt].y + dh.y);
        if (p < pixels) store2(dx + offset, p, dh);
      }
    }
  if (sums == nullptr) return;
  sum_over_columns<MT>(sum, space);
  sum_over_columns<MT>(along, space);
  keep_pairs<MT>(sum, along, sums, first, rows);
}

// -- what goes into a product ------------------------------------------------------------------------------------------

// A feature map as a convolution sees it: relu(BN(x)), or x itself where there is no norm. Four pixels of a row, p as in load4.
__device__ inline Four seen(Four x, const Fold* fold, int row, int p, int pixels) {
  if (fold == nullptr || p < 0 || p >= pixels) return x;
  const Fold f = fold[row];
#pragma unroll
  for (int i = 0; i < 4; ++i) x.v[i] = rectified(normalised(x.v[i], f));
  return x;
}

// The gradient of a convolution's result and, where a norm follows that still has to take its part, the result itself.
struct Gradient {
  Four dy, y;
};
__device__ inline Gradient load_gradient(const Stored* dy, const Stored* y, const Fold* fold, size_t row_start, int p, int end) {
  Gradient both = {};
  both.dy = load4(dy + row_start, p, end);
  if (fold != nullptr) both.y = load4(y + row_start, p, end);
  return both;
}

// dy, or scale·dy less its debt.
__device__ inline Four settled4(Gradient both, const Fold* fold, const Debt* debt, int row, int p, int pixels) {
  if (fold == nullptr || p >= pixels) return both.dy;
  const Fold f = fold[row];
  const Debt d = debt[row];
#pragma unroll
  for (int i = 0; i < 4; ++i) both.dy.v[i] = settled(f.scale * both.dy.v[i], both.y.v[i], f, d);
  return both.dy;
}

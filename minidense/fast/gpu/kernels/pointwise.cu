// 1×1 convolutions: a matrix product between filters and channels at every pixel, with the batch norm and the ReLU before it.
#include "tile.cuh"

constexpr int MT = 3;  // a warp does 48 rows: the 4·k of the usual growth rate k = 12

// result[f][p] = Σ_c weight[f][c]·h[c][p]. Grid (tiles of pixels, tiles of filters), blockDim.x/128·48 filters a tile.
template <int NT>
__device__ inline void forward(const Stored* x, const Fold* fold, const float* weight, Stored* result, float2* moments, int channels,
                               int filters, int pixels) {
  constexpr int DEPTH = 32, LONG = DEPTH + 4;  // channels at a time; a row length for which no two lanes meet in a bank
  constexpr int WIDTH = WARPS_ACROSS * 8 * NT, WIDE = WIDTH + 8;
  float* const shared = shared_memory();
  const int rows = 16 * MT * (blockDim.x / (32 * WARPS_ACROSS)), first = blockIdx.y * rows, p0 = blockIdx.x * WIDTH;
  float* const a = shared;             // [rows][LONG]
  float* const b = a + rows * LONG;    // [DEPTH][WIDE]
  const int down = warp() / WARPS_ACROSS * 16 * MT, left = warp() % WARPS_ACROSS * 8 * NT;
  float acc[MT][NT][4] = {};
  for (int c0 = 0; c0 < channels; c0 += DEPTH) {
    fetch<6>(
        rows * DEPTH,
        [&](int e) {
          const int f = first + e / DEPTH, c = c0 + e % DEPTH;
          return f < filters && c < channels ? weight[static_cast<size_t>(f) * channels + c] : 0.f;
        },
        [&](int e, float w) { a[e / DEPTH * LONG + e % DEPTH] = operand(w); });
    fetch<2 * NT>(
        DEPTH * WIDTH / 4,
        [&](int e) {
          const int c = c0 + e / (WIDTH / 4), p = p0 + 4 * (e % (WIDTH / 4));
          return load4(x + static_cast<size_t>(c) * pixels, c < channels ? p : -1, pixels);
        },
        [&](int e, Four four) {
          const int c = e / (WIDTH / 4), q = 4 * (e % (WIDTH / 4));
          put4(b + c * WIDE + q, c0 + c < channels ? seen(four, fold, c0 + c, p0 + q, pixels) : four);
        });
    __syncthreads();
#pragma unroll(tensor_cores ? DEPTH / 8 : 1)
    for (int k0 = 0; k0 < DEPTH; k0 += 8)
      multiply<MT, NT>(
          acc, [&](int m, int k) { return a[(down + m) * LONG + k0 + k]; },
          [&](int k, int nt, int j) { return b[(k0 + k) * WIDE + left + 8 * nt + column_of_lane(j)]; });
    __syncthreads();
  }
  keep_result<MT, NT>(acc, result, moments, first, filters, p0, pixels, shared);
}

// dh[c][p] = Σ_f weight[f][c]·dy[f][p], see keep_gradient and settled4. Grid (tiles of pixels, tiles of channels).
template <int NT>
__device__ inline void input_gradient(const Stored* dy, const Stored* y, const Fold* fold_y, const Debt* debt, const float* weight,
                                      const Stored* x, const Fold* fold, Stored* dx, float2* sums, int scaled, int added,
                                      int channels, int filters, int pixels) {
  constexpr int DEPTH = 48, WIDTH = WARPS_ACROSS * 8 * NT, WIDE = WIDTH + 8;
  float* const shared = shared_memory();
  const int rows = 16 * MT * (blockDim.x / (32 * WARPS_ACROSS)), first = blockIdx.y * rows, p0 = blockIdx.x * WIDTH;
  const int high = padded(rows, 8);
  float* const a = shared;              // [DEPTH][high]
  float* const b = a + DEPTH * high;    // [DEPTH][WIDE]
  const int down = warp() / WARPS_ACROSS * 16 * MT, left = warp() % WARPS_ACROSS * 8 * NT;
  float acc[MT][NT][4] = {};
  for (int f0 = 0; f0 < filters; f0 += DEPTH) {
    for (int f = warp(); f < DEPTH; f += blockDim.x / 32)
      for (int c = lane(); c < rows; c += 32) {
        const bool inside = f0 + f < filters && first + c < channels;
        a[f * high + c] = inside ? operand(weight[static_cast<size_t>(f0 + f) * channels + first + c]) : 0.f;
      }
    fetch<NT>(
        DEPTH * WIDTH / 4,
        [&](int e) {
          const int f = f0 + e / (WIDTH / 4), p = p0 + 4 * (e % (WIDTH / 4));
          return load_gradient(dy, y, fold_y, static_cast<size_t>(f) * pixels, f < filters ? p : -1, pixels);
        },
        [&](int e, Gradient both) {
          const int f = e / (WIDTH / 4), q = 4 * (e % (WIDTH / 4));
          put4(b + f * WIDE + q, f0 + f < filters ? settled4(both, fold_y, debt, f0 + f, p0 + q, pixels) : both.dy);
        });
    __syncthreads();
#pragma unroll(tensor_cores ? DEPTH / 8 : 1)
    for (int k0 = 0; k0 < DEPTH; k0 += 8)
      multiply<MT, NT>(
          acc, [&](int m, int k) { return a[(k0 + k) * high + down + m]; },
          [&](int k, int nt, int j) { return b[(k0 + k) * WIDE + left + 8 * nt + column_of_lane(j)]; });
    __syncthreads();
  }
  keep_gradient<MT, NT>(acc, x, fold, dx, sums, scaled, added, first, channels, p0, pixels, shared);
}

// Each for tiles of 128 pixels, and of 64 and 32 where there are too few pixels to keep a GPU busy.
#define ARGUMENTS \
  const Stored *x, const Fold *fold, const float *weight, Stored *result, float2 *moments, int channels, int filters, int pixels
KERNEL(256, pointwise_forward_128)(ARGUMENTS) { forward<4>(x, fold, weight, result, moments, channels, filters, pixels); }
KERNEL(256, pointwise_forward_64)(ARGUMENTS) { forward<2>(x, fold, weight, result, moments, channels, filters, pixels); }
KERNEL(256, pointwise_forward_32)(ARGUMENTS) { forward<1>(x, fold, weight, result, moments, channels, filters, pixels); }
#undef ARGUMENTS

#define ARGUMENTS                                                                                                             \
  const Stored *dy, const Stored *y, const Fold *fold_y, const Debt *debt, const float *weight, const Stored *x,              \
      const Fold *fold, Stored *dx, float2 *sums, int scaled, int added, int channels, int filters, int pixels
KERNEL(256, pointwise_input_gradient_128)(ARGUMENTS) {
  input_gradient<4>(dy, y, fold_y, debt, weight, x, fold, dx, sums, scaled, added, channels, filters, pixels);
}
KERNEL(256, pointwise_input_gradient_64)(ARGUMENTS) {
  input_gradient<2>(dy, y, fold_y, debt, weight, x, fold, dx, sums, scaled, added, channels, filters, pixels);
}
KERNEL(256, pointwise_input_gradient_32)(ARGUMENTS) {
  input_gradient<1>(dy, y, fold_y, debt, weight, x, fold, dx, sums, scaled, added, channels, filters, pixels);
}
#undef ARGUMENTS

// parts[share][f][c] = Σ_p dy[f][p]·h[c][p] over the pixels of one share; sum_of_parts adds the shares up.
// Grid (shares, tiles of 128 channels, tiles of 48 filters), 128 threads.
KERNEL(128, pointwise_weight_gradient)
(const Stored* dy, const Stored* y, const Fold* fold_y, const Debt* debt, const Stored* x, const Fold* fold, float* parts, int channels,
 int filters, int pixels, int share) {
  constexpr int DEPTH = 32, LONG = DEPTH + 4;  // pixels at a time
  constexpr int NT = 4, WIDTH = WARPS_ACROSS * 8 * NT, ROWS = 16 * MT;
  float* const shared = shared_memory();
  float* const a = shared;            // [ROWS][LONG]
  float* const b = a + ROWS * LONG;   // [WIDTH][LONG]
  const int c0 = blockIdx.y * WIDTH, f0 = blockIdx.z * ROWS, left = warp() * 8 * NT;
  const int begin = blockIdx.x * share, end = min(begin + share, pixels);
  float acc[MT][NT][4] = {};
  for (int p0 = begin; p0 < end; p0 += DEPTH) {
    fetch<3>(
        ROWS * DEPTH / 4,
        [&](int e) {
          const int f = f0 + e / (DEPTH / 4), p = p0 + 4 * (e % (DEPTH / 4));
          return load_gradient(dy, y, fold_y, static_cast<size_t>(f) * pixels, f < filters ? p : -1, end);
        },
        [&](int e, Gradient both) {
          const int f = e / (DEPTH / 4), q = 4 * (e % (DEPTH / 4));
          put4(a + f * LONG + q, f0 + f < filters ? settled4(both, fold_y, debt, f0 + f, p0 + q, end) : both.dy);
        });
    fetch<8>(
        WIDTH * DEPTH / 4,
        [&](int e) {
          const int c = c0 + e / (DEPTH / 4), p = p0 + 4 * (e % (DEPTH / 4));
          return load4(x + static_cast<size_t>(c) * pixels, c < channels ? p : -1, end);
        },
        [&](int e, Four four) {
          const int c = e / (DEPTH / 4), q = 4 * (e % (DEPTH / 4));
          put4(b + c * LONG + q, c0 + c < channels ? seen(four, fold, c0 + c, p0 + q, end) : four);
        });
    __syncthreads();
#pragma unroll(tensor_cores ? DEPTH / 8 : 1)
    for (int k0 = 0; k0 < DEPTH; k0 += 8)
      multiply<MT, NT>(
          acc, [&](int m, int k) { return a[m * LONG + k0 + k]; },
          [&](int k, int nt, int j) { return b[(left + 8 * nt + column_of_lane(j)) * LONG + k0 + k]; });
    __syncthreads();
  }
  float* const out = parts + static_cast<size_t>(blockIdx.x) * filters * channels;
#pragma unroll
  for (int mt = 0; mt < MT; ++mt)
#pragma unroll
    for (int nt = 0; nt < NT; ++nt)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int f = f0 + row_of(mt, e / 2), c = c0 + left + column_of(nt) + e % 2;
        if (f < filters && c < channels) out[static_cast<size_t>(f) * channels + c] = acc[mt][nt][e];
      }
}

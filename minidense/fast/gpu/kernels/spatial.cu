// 3×3 convolutions with a border of one zero: nine products between filters and channels, each at the pixel that its tap looks at.
//
// In a row of pixels, image after image, the neighbour (i + r − 1, j + s − 1) of pixel (i, j) is (r − 1)·W + s − 1 further. So a tile of
// pixels needs W + 1 more at both ends, and for every pixel nine bits that say which of its neighbours lie inside the image.
#include "tile.cuh"

constexpr int TAPS = 9;
constexpr int DEPTH = 8;  // channels in a tile
constexpr int LONG = TAPS * DEPTH + 4;  // of a filter's weights in shared memory, tap by tap: no two lanes meet in a bank

// Which of the nine neighbours of pixel p lie inside its image: bit 3·r + s. None for p outside the batch.
__device__ inline unsigned neighbours(int p, int pixels, int height, int width) {
  if (p < 0 || p >= pixels) return 0;
  const int j = p % width, i = p / width % height;
  unsigned inside = 0;
#pragma unroll
  for (int r = 0; r < 3; ++r)
#pragma unroll
    for (int s = 0; s < 3; ++s)
      if (i + r >= 1 && i + r <= height && j + s >= 1 && j + s <= width) inside |= 1u << (3 * r + s);
  return inside;
}

// Pixels before a tile that begin a quad of four: at least width + 1.
__device__ inline int margin_of(int width) { return (width + 1 + 3) / 4 * 4; }

// acc += the nine products of a tile of filters a[filter][tap][channel] with rows of pixels b, from channel to channel `wide` apart.
template <int MT, int NT>
__device__ inline void multiply_taps(float (&acc)[MT][NT][4], const float* a, const float* b, int wide, int image_width,
                                     const unsigned (&inside)[NT][COLUMNS]) {
#pragma unroll(tensor_cores ? TAPS : 1)
  for (int tap = 0; tap < TAPS; ++tap) {
    const int away = (tap / 3 - 1) * image_width + tap % 3 - 1;
    multiply<MT, NT>(
        acc, [&](int m, int k) { return a[m * LONG + tap * DEPTH + k]; },
        [&](int k, int nt, int j) {
          return inside[nt][j] >> tap & 1u ? b[k * wide + 8 * nt + column_of_lane(j) + away] : 0.f;
        });
  }
}

// Rows of `quads` times four pixels, `wide` apart in shared memory: load(row, q) and then put what finish(row, q, ·) makes of it at pixel
// q of the row. A warp has a row, and two of its quads on the way at once.
template <class Load, class Finish>
__device__ inline void load_rows(float* b, int wide, int rows, int quads, Load load, Finish finish) {
  for (int row = warp(); row < rows; row += blockDim.x / 32)
    for (int i = lane(); i < quads; i += 64) {
      const int q = 4 * i, next = 4 * min(i + 32, quads - 1);
      const Four here = load(row, q), there = load(row, next);
      put4(b + row * wide + q, finish(row, q, here));
      if (i + 32 < quads) put4(b + row * wide + next, finish(row, next, there));
    }
}

// A convolution of `inputs` rows of pixels, as forward and input_gradient share it. Grid (tiles of 128 pixels, tiles of results).
//   weights(a, first, rows, k0)   brings a[result − first][tap][input − k0], `rows` results and DEPTH inputs, into shared memory
//   load(k, p), finish(k, p, ·)   four pixels of input k, and what the product sees of them; p as in load4
//   keep(acc, first, p0, shared)  what becomes of the result
template <int MT, class Weights, class Load, class Finish, class Keep>
__device__ inline void convolve(int inputs, int pixels, int height, int width, Weights weights, Load load, Finish finish, Keep keep) {
  constexpr int NT = 4, WIDTH = WARPS_ACROSS * 8 * NT;
  float* const shared = shared_memory();
  const int rows = 16 * MT * (blockDim.x / (32 * WARPS_ACROSS)), first = blockIdx.y * rows, p0 = blockIdx.x * WIDTH;
  const int margin = margin_of(width), length = WIDTH + 2 * margin, wide = padded(length, 8);
  float* const a = shared;             // [rows][LONG]
  float* const b = a + rows * LONG;    // [DEPTH][wide]
  const int down = warp() / WARPS_ACROSS * 16 * MT, left = warp() % WARPS_ACROSS * 8 * NT;
  unsigned inside[NT][COLUMNS];
#pragma unroll
  for (int nt = 0; nt < NT; ++nt)
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j)
      inside[nt][j] = neighbours(p0 + left + 8 * nt + column_of_lane(j), pixels, height, width);
  float acc[MT][NT][4] = {};
  for (int k0 = 0; k0 < inputs; k0 += DEPTH) {
    weights(a, first, rows, k0);
    load_rows(
        b, wide, DEPTH, length / 4, [&](int k, int q) { return load(k0 + k, p0 - margin + q); },
        [&](int k, int q, Four four) { return finish(k0 + k, p0 - margin + q, four); });
    __syncthreads();
    multiply_taps<MT, NT>(acc, a + down * LONG, b + margin + left, wide, width, inside);
    __syncthreads();
  }
  keep(acc, first, p0, shared);
}

// result[f][i, j] = Σ_{c,r,s} weight[f][c][r][s]·h[c][i + r − 1, j + s − 1]
template <int MT>
__device__ inline void forward(const Stored* x, const Fold* fold, const float* weight, Stored* result, float2* moments, int channels,
                               int filters, int pixels, int height, int width) {
  convolve<MT>(
      channels, pixels, height, width,
      [&](float* a, int first, int rows, int c0) {
        fetch<4>(
            rows * DEPTH * TAPS,
            [&](int e) {
              const int f = first + e / (DEPTH * TAPS), k = e % (DEPTH * TAPS);
              return f < filters && c0 + k / TAPS < channels ? weight[(static_cast<size_t>(f) * channels + c0) * TAPS + k] : 0.f;
            },
            [&](int e, float w) {
              const int f = e / (DEPTH * TAPS), k = e % (DEPTH * TAPS);
              a[f * LONG + k % TAPS * DEPTH + k / TAPS] = operand(w);
            });
      },
      [&](int c, int p) { return load4(x + static_cast<size_t>(c) * pixels, c < channels ? p : -1, pixels); },
      [&](int c, int p, Four four) { return c < channels ? seen(four, fold, c, p, pixels) : four; },
      [&](auto& acc, int first, int p0, float* shared) {
        keep_result(acc, result, moments, first, filters, p0, pixels, shared);
      });
}

// dh[c][i, j] = Σ_{f,r,s} weight[f][c][r][s]·dy[f][i + 1 − r, j + 1 − s]: the same with the filters turned round, see keep_gradient.
template <int MT>
__device__ inline void input_gradient(const Stored* dy, const float* weight, const Stored* x, const Fold* fold, Stored* dx, float2* sums,
                                      int scaled, int added, int channels, int filters, int pixels, int height, int width) {
  convolve<MT>(
      filters, pixels, height, width,
      [&](float* a, int first, int rows, int f0) {
        for (int f = warp(); f < DEPTH; f += blockDim.x / 32)
          for (int k = lane(); k < rows * TAPS; k += 32) {
            const int c = k / TAPS, tap = k % TAPS;
            const bool within = f0 + f < filters && first + c < channels;
            const float w = within ? weight[(static_cast<size_t>(f0 + f) * channels + first) * TAPS + k] : 0.f;
            a[c * LONG + (TAPS - 1 - tap) * DEPTH + f] = operand(w);
          }
      },
      [&](int f, int p) { return load4(dy + static_cast<size_t>(f) * pixels, f < filters ? p : -1, pixels); },
      [&](int, int, Four four) { return four; },
      [&](auto& acc, int first, int p0, float* shared) {
        keep_gradient(acc, x, fold, dx, sums, scaled, added, first, channels, p0, pixels, shared);
      });
}

// For up to 16 rows a warp (the 12 of the usual growth rate), and for 48.
#define ARGUMENTS                                                                                                                 \
  const Stored *x, const Fold *fold, const float *weight, Stored *result, float2 *moments, int channels, int filters, int pixels, \
      int height, int width
KERNEL(256, spatial_forward)(ARGUMENTS) { forward<3>(x, fold, weight, result, moments, channels, filters, pixels, height, width); }
KERNEL(256, spatial_forward_low)(ARGUMENTS) {
  forward<1>(x, fold, weight, result, moments, channels, filters, pixels, height, width);
}
#undef ARGUMENTS

#define ARGUMENTS                                                                                                              \
  const Stored *dy, const float *weight, const Stored *x, const Fold *fold, Stored *dx, float2 *sums, int scaled, int added,   \
      int channels, int filters, int pixels, int height, int width
KERNEL(256, spatial_input_gradient)(ARGUMENTS) {
  input_gradient<3>(dy, weight, x, fold, dx, sums, scaled, added, channels, filters, pixels, height, width);
}
KERNEL(256, spatial_input_gradient_low)(ARGUMENTS) {
  input_gradient<1>(dy, weight, x, fold, dx, sums, scaled, added, channels, filters, pixels, height, width);
}
#undef ARGUMENTS

// parts[share][f][c][r][s] = Σ_{i,j} dy[f][i, j]·h[c][i + r − 1, j + s − 1] over the pixels of one share; sum_of_parts adds them up.
// Grid (shares, tiles of channels, tiles of 16 filters); a warp has 8 channels.
KERNEL(256, spatial_weight_gradient)
(const Stored* dy, const Stored* x, const Fold* fold, float* parts, int channels, int filters, int pixels, int height, int width,
 int share) {
  constexpr int CHUNK = 64, APART = CHUNK + 4, ROWS = 16;  // pixels at a time
  float* const shared = shared_memory();
  const int margin = margin_of(width), length = CHUNK + 2 * margin, wide = padded(length, 4);
  const int columns = blockDim.x / 32 * 8, c0 = blockIdx.y * columns, f0 = blockIdx.z * ROWS, left = warp() * 8;
  float* const a = shared;                                                // [ROWS][APART]
  float* const b = a + ROWS * APART;                                      // [columns][wide]
  unsigned* const inside = reinterpret_cast<unsigned*>(b + columns * wide);  // [CHUNK]
  const int begin = blockIdx.x * share, end = min(begin + share, pixels);
  float acc[TAPS][1][1][4] = {};
  for (int p0 = begin; p0 < end; p0 += CHUNK) {
    fetch<2>(
        ROWS * CHUNK / 4,
        [&](int e) {
          const int f = f0 + e / (CHUNK / 4), p = p0 + 4 * (e % (CHUNK / 4));
          return load4(dy + static_cast<size_t>(f) * pixels, f < filters ? p : -1, end);
        },
        [&](int e, Four four) { put4(a + e / (CHUNK / 4) * APART + 4 * (e % (CHUNK / 4)), four); });
    load_rows(
        b, wide, columns, length / 4,
        [&](int c, int q) {
          return load4(x + static_cast<size_t>(c0 + c) * pixels, c0 + c < channels ? p0 - margin + q : -1, pixels);
        },
        [&](int c, int q, Four four) {
          return c0 + c < channels ? seen(four, fold, c0 + c, p0 - margin + q, pixels) : four;
        });
    for (int e = threadIdx.x; e < CHUNK; e += blockDim.x) inside[e] = neighbours(p0 + e, pixels, height, width);
    __syncthreads();
    for (int k0 = 0; k0 < CHUNK; k0 += 8) {
#pragma unroll
      for (int tap = 0; tap < TAPS; ++tap) {
        const int away = margin + (tap / 3 - 1) * width + tap % 3 - 1;
        multiply<1, 1>(
            acc[tap], [&](int m, int k) { return a[m * APART + k0 + k]; },
            [&](int k, int, int j) {
              return inside[k0 + k] >> tap & 1u ? b[(left + column_of_lane(j)) * wide + k0 + k + away] : 0.f;
            });
      }
    }
    __syncthreads();
  }
  float* const out = parts + static_cast<size_t>(blockIdx.x) * filters * channels * TAPS;
#pragma unroll
  for (int tap = 0; tap < TAPS; ++tap)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int f = f0 + row_of(0, e / 2), c = c0 + left + column_of(0) + e % 2;
      if (f < filters && c < channels) out[(static_cast<size_t>(f) * channels + c) * TAPS + tap] = acc[tap][0][0][e];
    }
}

// 3×3 convolutions with a border of one zero: nine products between filters and channels, each at the pixel that its tap looks at.
//
// In a row of pixels, image after image, the neighbour (i + r − 1, j + s − 1) of pixel (i, j) is (r − 1)·W + s − 1 further. So a tile of
// pixels needs W + 1 more at both ends, and for every pixel nine bits that say which of its neighbours lie inside the image.
#include "tile.cuh"

constexpr int TAPS = 9;
constexpr int DEPTH = 8;  // channels in a tile

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

// acc += the nine products of a tile of filters a[tap][channel][filter] with rows of pixels b, from channel to channel `wide` apart.
template <int MT, int NT>
__device__ inline void multiply_taps(float (&acc)[MT][NT][4], const float* a, int high, const float* b, int wide, int image_width,
                                     const unsigned (&inside)[NT][COLUMNS]) {
#pragma unroll(tensor_cores ? TAPS : 1)
  for (int tap = 0; tap < TAPS; ++tap) {
    const int away = (tap / 3 - 1) * image_width + tap % 3 - 1;
    multiply<MT, NT>(
        acc, [&](int m, int k) { return a[(tap * DEPTH + k) * high + m]; },
        [&](int k, int nt, int j) {
          return inside[nt][j] >> tap & 1u ? b[k * wide + 8 * nt + column_of_lane(j) + away] : 0.f;
        });
  }
}

// result[f][i, j] = Σ_{c,r,s} weight[f][c][r][s]·h[c][i + r − 1, j + s − 1]. Grid (tiles of 128 pixels, tiles of filters).
template <int MT>
__device__ inline void forward(const Stored* x, const Fold* fold, const float* weight, Stored* result, float2* moments, int channels,
                               int filters, int pixels, int height, int width) {
  constexpr int NT = 4, WIDTH = WARPS_ACROSS * 8 * NT;
  float* const shared = shared_memory();
  const int rows = 16 * MT * (blockDim.x / (32 * WARPS_ACROSS)), first = blockIdx.y * rows, p0 = blockIdx.x * WIDTH;
  const int high = padded(rows, 8), margin = margin_of(width), length = WIDTH + 2 * margin, wide = padded(length, 8);
  float* const a = shared;                     // [TAPS][DEPTH][high]
  float* const b = a + TAPS * DEPTH * high;    // [DEPTH][wide]
  const int down = warp() / WARPS_ACROSS * 16 * MT, left = warp() % WARPS_ACROSS * 8 * NT;
  unsigned inside[NT][COLUMNS];
#pragma unroll
  for (int nt = 0; nt < NT; ++nt)
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j)
      inside[nt][j] = neighbours(p0 + left + 8 * nt + column_of_lane(j), pixels, height, width);
  float acc[MT][NT][4] = {};
  for (int c0 = 0; c0 < channels; c0 += DEPTH) {
    for (int e = threadIdx.x; e < rows * DEPTH * TAPS; e += blockDim.x) {
      const int f = e / (DEPTH * TAPS), k = e % (DEPTH * TAPS), c = k / TAPS, tap = k % TAPS;
      const bool within = first + f < filters && c0 + c < channels;
      a[(tap * DEPTH + c) * high + f] =
          within ? operand(weight[(static_cast<size_t>(first + f) * channels + c0 + c) * TAPS + tap]) : 0.f;
    }
    for (int e = threadIdx.x; e < DEPTH * length / 4; e += blockDim.x) {
      const int c = e / (length / 4), q = 4 * (e % (length / 4));
      Four four = {};
      if (c0 + c < channels) four = seen4(x, fold, c0 + c, p0 - margin + q, pixels);
      put4(b + c * wide + q, four);
    }
    __syncthreads();
    multiply_taps<MT, NT>(acc, a + down, high, b + margin + left, wide, width, inside);
    __syncthreads();
  }
  keep_result<MT, NT>(acc, result, moments, first, filters, p0, pixels, shared);
}

// dh[c][i, j] = Σ_{f,r,s} weight[f][c][r][s]·dy[f][i + 1 − r, j + 1 − s]: the same with the filters turned round, see keep_gradient.
template <int MT>
__device__ inline void input_gradient(const Stored* dy, const float* weight, const Stored* x, const Fold* fold, Stored* dx, float2* sums,
                                      int scaled, int added, int channels, int filters, int pixels, int height, int width) {
  constexpr int NT = 4, WIDTH = WARPS_ACROSS * 8 * NT;
  float* const shared = shared_memory();
  const int rows = 16 * MT * (blockDim.x / (32 * WARPS_ACROSS)), first = blockIdx.y * rows, p0 = blockIdx.x * WIDTH;
  const int high = padded(rows, 8), margin = margin_of(width), length = WIDTH + 2 * margin, wide = padded(length, 8);
  float* const a = shared;                     // [TAPS][DEPTH][high]
  float* const b = a + TAPS * DEPTH * high;    // [DEPTH][wide]
  const int down = warp() / WARPS_ACROSS * 16 * MT, left = warp() % WARPS_ACROSS * 8 * NT;
  unsigned inside[NT][COLUMNS];
#pragma unroll
  for (int nt = 0; nt < NT; ++nt)
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j)
      inside[nt][j] = neighbours(p0 + left + 8 * nt + column_of_lane(j), pixels, height, width);
  float acc[MT][NT][4] = {};
  for (int f0 = 0; f0 < filters; f0 += DEPTH) {
    for (int e = threadIdx.x; e < DEPTH * rows * TAPS; e += blockDim.x) {
      const int f = e / (rows * TAPS), k = e % (rows * TAPS), c = k / TAPS, tap = k % TAPS;
      const bool within = f0 + f < filters && first + c < channels;
      a[((TAPS - 1 - tap) * DEPTH + f) * high + c] =
          within ? operand(weight[(static_cast<size_t>(f0 + f) * channels + first + c) * TAPS + tap]) : 0.f;
    }
    for (int e = threadIdx.x; e < DEPTH * length / 4; e += blockDim.x) {
      const int f = e / (length / 4), q = 4 * (e % (length / 4));
      Four four = {};
      if (f0 + f < filters) four = load4(dy + static_cast<size_t>(f0 + f) * pixels, p0 - margin + q, pixels);
      put4(b + f * wide + q, four);
    }
    __syncthreads();
    multiply_taps<MT, NT>(acc, a + down, high, b + margin + left, wide, width, inside);
    __syncthreads();
  }
  keep_gradient<MT, NT>(acc, x, fold, dx, sums, scaled, added, first, channels, p0, pixels, shared);
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
  constexpr int CHUNK = 64, LONG = CHUNK + 4, ROWS = 16;  // pixels at a time
  float* const shared = shared_memory();
  const int margin = margin_of(width), length = CHUNK + 2 * margin, wide = padded(length, 4);
  const int columns = blockDim.x / 32 * 8, c0 = blockIdx.y * columns, f0 = blockIdx.z * ROWS, left = warp() * 8;
  float* const a = shared;                                                // [ROWS][LONG]
  float* const b = a + ROWS * LONG;                                       // [columns][wide]
  unsigned* const inside = reinterpret_cast<unsigned*>(b + columns * wide);  // [CHUNK]
  const int begin = blockIdx.x * share, end = min(begin + share, pixels);
  float acc[TAPS][1][1][4] = {};
  for (int p0 = begin; p0 < end; p0 += CHUNK) {
    for (int e = threadIdx.x; e < ROWS * CHUNK / 4; e += blockDim.x) {
      const int f = e / (CHUNK / 4), q = 4 * (e % (CHUNK / 4));
      Four four = {};
      if (f0 + f < filters && p0 + q < end) four = load4(dy + static_cast<size_t>(f0 + f) * pixels, p0 + q, pixels);
      put4(a + f * LONG + q, four);
    }
    for (int e = threadIdx.x; e < columns * length / 4; e += blockDim.x) {
      const int c = e / (length / 4), q = 4 * (e % (length / 4));
      Four four = {};
      if (c0 + c < channels) four = seen4(x, fold, c0 + c, p0 - margin + q, pixels);
      put4(b + c * wide + q, four);
    }
    for (int e = threadIdx.x; e < CHUNK; e += blockDim.x) inside[e] = neighbours(p0 + e, pixels, height, width);
    __syncthreads();
    for (int k0 = 0; k0 < CHUNK; k0 += 8) {
#pragma unroll
      for (int tap = 0; tap < TAPS; ++tap) {
        const int away = margin + (tap / 3 - 1) * width + tap % 3 - 1;
        multiply<1, 1>(
            acc[tap], [&](int m, int k) { return a[m * LONG + k0 + k]; },
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

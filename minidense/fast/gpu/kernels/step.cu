// What a step of training needs besides feature maps: the classifier's products, the loss, and the optimiser. All in float32.
#include "tile.cuh"

// y[m][n] = Σ_k a[m·a_down + k·a_along]·b[k·b_down + n·b_along] + bias[n]. Grid (tiles of 16 columns, of 16 rows), 256 threads.
KERNEL(256, matrix_product)
(const float* a, int a_down, int a_along, const float* b, int b_down, int b_along, const float* bias, float* y, int rows, int columns,
 int depth) {
  __shared__ float left[16][17], right[16][17];
  const int i = threadIdx.x / 16, j = threadIdx.x % 16, m = blockIdx.y * 16 + i, n = blockIdx.x * 16 + j;
  float sum = 0.f;
  for (int k0 = 0; k0 < depth; k0 += 16) {
    left[i][j] = m < rows && k0 + j < depth ? a[static_cast<size_t>(m) * a_down + static_cast<size_t>(k0 + j) * a_along] : 0.f;
    right[i][j] = k0 + i < depth && n < columns ? b[static_cast<size_t>(k0 + i) * b_down + static_cast<size_t>(n) * b_along] : 0.f;
    __syncthreads();
    for (int k = 0; k < 16; ++k) sum = fmaf(left[i][k], right[k][j], sum);
    __syncthreads();
  }
  if (m < rows && n < columns) y[static_cast<size_t>(m) * columns + n] = sum + (bias == nullptr ? 0.f : bias[n]);
}

// y[n] = Σ_m x[m][n]. One thread a column.
KERNEL(256, sum_of_rows)(const float* x, float* y, int rows, int columns) {
  const int n = blockIdx.x * blockDim.x + threadIdx.x;
  if (n >= columns) return;
  float sum = 0.f;
  for (int m = 0; m < rows; ++m) sum += x[static_cast<size_t>(m) * columns + n];
  y[n] = sum;
}

// log p of every row, p = softmax(logits), and the loss −mean log p[label]. One block; a warp takes every eighth row.
// A label that names no class makes the loss NaN: there is nobody here to raise an error.
KERNEL(256, softmax_cross_entropy)
(const float* logits, const long long* labels, float* log_p, float* loss, int rows, int classes) {
  __shared__ double space[8];
  double sum = 0.;
  for (int row = warp(); row < rows; row += 8) {
    const float* from = logits + static_cast<size_t>(row) * classes;
    float* to = log_p + static_cast<size_t>(row) * classes;
    float largest = -infinity(), total = 0.f;
    for (int k = lane(); k < classes; k += 32) largest = from[k] > largest || from[k] != from[k] ? from[k] : largest;
    for (int step = 16; step > 0; step /= 2) {
      const float other = __shfl_xor_sync(0xffffffffu, largest, step);
      largest = other > largest || other != other ? other : largest;
    }
    for (int k = lane(); k < classes; k += 32) total += expf(from[k] - largest);
    const float log_total = logf(sum_over_warp(total));
    const long long label = labels[row];
    for (int k = lane(); k < classes; k += 32) {
      to[k] = from[k] - largest - log_total;
      if (k == label) sum -= to[k];
    }
    if (lane() == 0 && (label < 0 || label >= classes)) sum = infinity() - infinity();
  }
  sum = sum_over_warp(sum);
  if (lane() == 0) space[warp()] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    double all = 0.;
    for (int i = 0; i < 8; ++i) all += space[i];
    *loss = static_cast<float>(all / rows);
  }
}

// dlogits = (p − one-hot)·dy/rows, dy one number.
KERNEL(256, softmax_cross_entropy_gradient)
(const float* log_p, const long long* labels, const float* dy, float* dlogits, int rows, int classes) {
  const int e = blockIdx.x * blockDim.x + threadIdx.x;
  if (e >= rows * classes) return;
  dlogits[e] = (expf(log_p[e]) - (e % classes == labels[e / classes] ? 1.f : 0.f)) * (*dy / rows);
}

// One parameter's step, its arrays by address; velocity is null before the first step and without momentum.
struct Parameter {
  const float* weight;
  const float* gradient;
  const float* velocity;
  float* new_weight;
  float* new_velocity;
  long long count;
};

// SGD with momentum as optim.SGD defines it. Grid (blocks, parameters). The learning rate lies on the GPU, where it can change
// between two replays of the same launch.
KERNEL(256, sgd)
(const Parameter* parameters, const float* learning_rate, float momentum, float dampening, float weight_decay, int nesterov) {
  const Parameter p = parameters[blockIdx.y];
  for (long long i = blockIdx.x * blockDim.x + threadIdx.x; i < p.count; i += gridDim.x * blockDim.x) {
    const float w = p.weight[i], g = fmaf(weight_decay, w, p.gradient[i]);
    float direction = g;
    if (momentum != 0.f) {
      const float v = p.velocity == nullptr ? g : fmaf(momentum, p.velocity[i], (1.f - dampening) * g);
      p.new_velocity[i] = v;
      direction = nesterov ? fmaf(momentum, v, g) : v;
    }
    p.new_weight[i] = fmaf(-*learning_rate, direction, w);
  }
}

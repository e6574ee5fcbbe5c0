// The loops over a channels-last image batch that cpp.py beside this file calls; formulas.py
// names their arguments. Every sum is taken per pair of rows first and then in the order of
// the rows: no result depends on the number of threads.
#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

// No element of the window passes the ReLU; 0..3: the place of the one that does.
constexpr int DEAD = 4;

struct Shape {
    long n, h, w, c;                            // items, height, width, channels
    long pairs() const { return (h + 1) / 2; }  // of rows, the last one possibly half
    bool whole(long pair) const { return 2 * pair + 1 < h; }
    long end(long pair) const { return std::min(2 * pair + 2, h); }
    long window(long item, long i, long j) const {
        return ((item * (h / 2) + i) * (w / 2) + j) * c;
    }
    long pixel(long item, long i, long j) const { return ((item * h + i) * w + j) * c; }
};

template <class Body>
void over_rows(const Shape& s, int threads, Body body) {
    const long blocks = s.n * s.pairs();
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long b = 0; b < blocks; ++b) body(b / s.pairs(), b % s.pairs());
}

// Adds to total (k, c) the sum of what body(item, pair, buffer) writes into its buffer of k * c
// numbers.
template <class A, class Body>
void sum_over_rows(const Shape& s, long k, double* total, int threads, Body body) {
    const long blocks = s.n * s.pairs(), width = k * s.c;
    std::vector<A> partial(blocks * width, A(0));
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long b = 0; b < blocks; ++b)
        body(b / s.pairs(), b % s.pairs(), partial.data() + b * width);
    for (long b = 0; b < blocks; ++b)
        for (long j = 0; j < width; ++j) total[j] += partial[b * width + j];
}

// The four elements of one window.
template <class T>
struct Window {
    const T* __restrict v0;
    const T* __restrict v1;
    const T* __restrict v2;
    const T* __restrict v3;
    Window(const T* u, const Shape& s, long item, long i, long j)
        : v0(u + s.pixel(item, 2 * i, 2 * j)), v1(v0 + s.c), v2(v0 + s.w * s.c), v3(v2 + s.c) {}
};

// The value at the coded place; 0 where it is dead. Arithmetic, since compilers do not vectorise
// the four branches.
template <class A>
inline A chosen(int q, A v0, A v1, A v2, A v3) {
    return A(q == 0) * v0 + A(q == 1) * v1 + A(q == 2) * v2 + A(q == 3) * v3;
}

// total[0] += sum(u - shift), total[1] += sum((u - shift)^2)
template <class A>
void moments(const A* u, const A* shift, Shape s, double* total, int threads) {
    sum_over_rows<A>(s, 2, total, threads, [&](long item, long pair, A* out) {
        const A* __restrict k = shift;
        A* __restrict sum = out;
        A* __restrict square = out + s.c;
        const long channels = s.c;
        for (long i = 2 * pair; i < s.end(pair); ++i)
            for (long j = 0; j < s.w; ++j) {
                const A* __restrict a = u + s.pixel(item, i, j);
#pragma omp simd
                for (long c = 0; c < channels; ++c) {
                    const A d = a[c] - k[c];
                    sum[c] += d;
                    square[c] += d * d;
                }
            }
    });
}

// y = relu(scale * (p - mean) + beta), p the element of each window with the largest sign * u, and
// its place
template <class A>
void pool(const A* u, const A* sign, const A* scale, const A* mean, const A* beta, Shape s, A* y,
          uint8_t* code, int threads) {
    over_rows(s, threads, [&](long item, long pair) {
        if (!s.whole(pair)) return;
        const A* __restrict sg = sign;
        const A* __restrict sc = scale;
        const A* __restrict mu = mean;
        const A* __restrict be = beta;
        const long channels = s.c;
        for (long j = 0; j < s.w / 2; ++j) {
            const Window<A> a(u, s, item, pair, j);
            A* __restrict to = y + s.window(item, pair, j);
            uint8_t* __restrict place = code + s.window(item, pair, j);
#pragma omp simd
            for (long c = 0; c < channels; ++c) {
                const A a0 = sg[c] * a.v0[c], a1 = sg[c] * a.v1[c], a2 = sg[c] * a.v2[c],
                        a3 = sg[c] * a.v3[c];
                const A low = a1 > a0 ? a1 : a0, high = a3 > a2 ? a3 : a2;
                const int q_low = a1 > a0 ? 1 : 0, q_high = a3 > a2 ? 3 : 2,
                          q = high > low ? q_high : q_low;
                const A z =
                    sc[c] * (chosen<A>(q, a.v0[c], a.v1[c], a.v2[c], a.v3[c]) - mu[c]) + be[c];
                to[c] = z <= 0 ? A(0) : z;
                place[c] = uint8_t(z <= 0 ? DEAD : q);
            }
        }
    });
}

// total[0] += sum(g), total[1] += sum(g * (p - mean)), g = gy where alive
template <class A>
void reduce(const A* gy, const A* u, const uint8_t* code, const A* mean, Shape s, double* total,
            int threads) {
    sum_over_rows<A>(s, 2, total, threads, [&](long item, long pair, A* out) {
        if (!s.whole(pair)) return;
        A* __restrict of_g = out;
        A* __restrict of_gx = out + s.c;
        const A* __restrict mu = mean;
        const long channels = s.c;
        for (long j = 0; j < s.w / 2; ++j) {
            const Window<A> a(u, s, item, pair, j);
            const uint8_t* __restrict place = code + s.window(item, pair, j);
            const A* __restrict from = gy + s.window(item, pair, j);
#pragma omp simd
            for (long c = 0; c < channels; ++c) {
                const int q = place[c];
                const A g = A(q < DEAD) * from[c];
                of_g[c] += g;
                of_gx[c] += g * (chosen<A>(q, a.v0[c], a.v1[c], a.v2[c], a.v3[c]) - mu[c]);
            }
        }
    });
}

// total[0] += sum(v), total[1] += sum(v * (u - mean)), both over the first `counted` items;
// total[2] += sum(gy * v at p)
template <class A>
void reduce_v(const A* v, const A* gy, const A* u, const uint8_t* code, const A* mean, Shape s,
              long counted, double* total, int threads) {
    sum_over_rows<A>(s, 3, total, threads, [&](long item, long pair, A* out) {
        A* __restrict of_v = out;
        A* __restrict of_vx = out + s.c;
        A* __restrict of_gv = out + 2 * s.c;
        const A* __restrict mu = mean;
        const long channels = s.c;
        if (item < counted)
            for (long i = 2 * pair; i < s.end(pair); ++i)
                for (long j = 0; j < s.w; ++j) {
                    const A* __restrict a = u + s.pixel(item, i, j);
                    const A* __restrict b = v + s.pixel(item, i, j);
#pragma omp simd
                    for (long c = 0; c < channels; ++c) {
                        of_v[c] += b[c];
                        of_vx[c] += b[c] * (a[c] - mu[c]);
                    }
                }
        if (!s.whole(pair)) return;
        for (long j = 0; j < s.w / 2; ++j) {
            const Window<A> b(v, s, item, pair, j);
            const uint8_t* __restrict place = code + s.window(item, pair, j);
            const A* __restrict from = gy + s.window(item, pair, j);
#pragma omp simd
            for (long c = 0; c < channels; ++c)
                of_gv[c] += from[c] * chosen<A>(place[c], b.v0[c], b.v1[c], b.v2[c], b.v3[c]);
        }
    });
}

// result = by_g * put(g) + v, plus level + slope * (u - mean) in the first `counted` items; with
// SCALED, by_v * v is added instead of v, and in those items only. Where v is null there is none.
template <bool SCALED, bool WITH_V, class A>
void dense_loop(const A* u, const A* v, const A* gy, const uint8_t* code, const A* mean,
                const A* level, const A* slope, const A* by_v, const A* by_g, Shape s, long counted,
                A* result, int threads) {
    over_rows(s, threads, [&](long item, long pair) {
        const A keep = item < counted ? A(1) : A(0);
        const A* __restrict mu = mean;
        const A* __restrict lv = level;
        const A* __restrict sl = slope;
        const A* __restrict bv = by_v;
        const A* __restrict bg = by_g;
        const long channels = s.c;
        for (long i = 2 * pair; i < s.end(pair); ++i)
            for (long j = 0; j < s.w; ++j) {
                const A* __restrict a = u + s.pixel(item, i, j);
                const A* __restrict b = WITH_V ? v + s.pixel(item, i, j) : nullptr;
                A* __restrict to = result + s.pixel(item, i, j);
                const bool inside = s.whole(pair) && j / 2 < s.w / 2;
                const long at = inside ? s.window(item, pair, j / 2) : 0;
                const int here = inside ? int(2 * (i % 2) + j % 2) : -1;
                const uint8_t* __restrict place = code + at;
                const A* __restrict g = gy + at;
#pragma omp simd
                for (long c = 0; c < channels; ++c) {
                    A value = lv[c] + sl[c] * (a[c] - mu[c]);
                    if (WITH_V && SCALED) value += bv[c] * b[c];
                    value = keep * value + bg[c] * (A(int(place[c]) == here) * g[c]);
                    if (WITH_V && !SCALED) value += b[c];
                    to[c] = value;
                }
            }
    });
}

template <bool SCALED, class A>
void dense(const A* u, const A* v, const A* gy, const uint8_t* code, const A* mean, const A* level,
           const A* slope, const A* by_v, const A* by_g, Shape s, long counted, A* result,
           int threads) {
    auto loop = v ? dense_loop<SCALED, true, A> : dense_loop<SCALED, false, A>;
    loop(u, v, gy, code, mean, level, slope, by_v, by_g, s, counted, result, threads);
}

// result = level + slope * (p - mean) + scale * (v at p) where alive, else 0
template <class A>
void sparse(const A* v, const A* u, const uint8_t* code, const A* mean, const A* level,
            const A* slope, const A* scale, Shape s, A* result, int threads) {
    over_rows(s, threads, [&](long item, long pair) {
        if (!s.whole(pair)) return;
        const A* __restrict mu = mean;
        const A* __restrict lv = level;
        const A* __restrict sl = slope;
        const A* __restrict sc = scale;
        const long channels = s.c;
        for (long j = 0; j < s.w / 2; ++j) {
            const Window<A> a(u, s, item, pair, j);
            const Window<A> b(v, s, item, pair, j);
            const uint8_t* __restrict place = code + s.window(item, pair, j);
            A* __restrict to = result + s.window(item, pair, j);
#pragma omp simd
            for (long c = 0; c < channels; ++c) {
                const int q = place[c];
                const A p = chosen<A>(q, a.v0[c], a.v1[c], a.v2[c], a.v3[c]);
                const A w = chosen<A>(q, b.v0[c], b.v1[c], b.v2[c], b.v3[c]);
                to[c] = A(q < DEAD) * (lv[c] + sl[c] * (p - mu[c]) + sc[c] * w);
            }
        }
    });
}

}  // namespace

#define SHAPE long n, long h, long w, long c

#define EXPORT(A, a)                                                                               \
    extern "C" void moments_##a(const A* u, const A* shift, double* total, SHAPE, int threads) {   \
        moments(u, shift, {n, h, w, c}, total, threads);                                           \
    }                                                                                              \
    extern "C" void pool_##a(const A* u, const A* sign, const A* scale, const A* mean,             \
                             const A* beta, A* y, uint8_t* code, SHAPE, int threads) {             \
        pool(u, sign, scale, mean, beta, {n, h, w, c}, y, code, threads);                          \
    }                                                                                              \
    extern "C" void reduce_##a(const A* gy, const A* u, const uint8_t* code, const A* mean,        \
                               double* total, SHAPE, int threads) {                                \
        reduce(gy, u, code, mean, {n, h, w, c}, total, threads);                                   \
    }                                                                                              \
    extern "C" void reduce_v_##a(const A* v, const A* gy, const A* u, const uint8_t* code,         \
                                 const A* mean, double* total, long counted, SHAPE, int threads) { \
        reduce_v(v, gy, u, code, mean, {n, h, w, c}, counted, total, threads);                     \
    }                                                                                              \
    extern "C" void scatter_##a(const A* u, const A* v, const A* gy, const uint8_t* code,          \
                                const A* mean, const A* level, const A* slope, const A* by_g,      \
                                A* result, long counted, SHAPE, int threads) {                     \
        dense<false>(u, v, gy, code, mean, level, slope, level, by_g, {n, h, w, c}, counted,       \
                     result, threads);                                                             \
    }                                                                                              \
    extern "C" void scatter_v_##a(const A* u, const A* v, const A* gy, const uint8_t* code,        \
                                  const A* mean, const A* level, const A* slope, const A* by_v,    \
                                  const A* by_g, A* result, long counted, SHAPE, int threads) {    \
        dense<true>(u, v, gy, code, mean, level, slope, by_v, by_g, {n, h, w, c}, counted, result, \
                    threads);                                                                      \
    }                                                                                              \
    extern "C" void sparse_##a(const A* v, const A* u, const uint8_t* code, const A* mean,         \
                               const A* level, const A* slope, const A* scale, A* result, SHAPE,   \
                               int threads) {                                                      \
        sparse(v, u, code, mean, level, slope, scale, {n, h, w, c}, result, threads);              \
    }

EXPORT(float, float32)
EXPORT(double, float64)

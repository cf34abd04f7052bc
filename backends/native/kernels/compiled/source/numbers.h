/* Sixteen numbers at a time: small formats as float32, lookups, and results in float32 or bfloat16 in memory.

   Vectors are the compiler's own (GCC and Clang), so that any processor runs this; where a processor has one instruction
   for what the plain form takes many for, that instruction stands beside it. */
#ifndef NUMBERS_H
#define NUMBERS_H

#include <stdint.h>
#include <string.h>
#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))

#define LANES 16
typedef uint8_t Bytes __attribute__((vector_size(16)));
typedef int8_t SignedBytes __attribute__((vector_size(16)));
typedef uint16_t Halves __attribute__((vector_size(32)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint32_t Bits __attribute__((vector_size(64)));
typedef float Floats __attribute__((vector_size(64)));

#define QUIET_NAN 0x7fc00000u
static const Bits LANE = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

INLINE float from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* One NaN only: rounding to bfloat16 would carry a NaN of all ones over into the sign. */
INLINE float one_nan(float value) { return value == value ? value : from_bits(QUIET_NAN); }

INLINE float half_to_float(const uint8_t *at) {
    uint32_t half = at[0] | (uint32_t)at[1] << 8;
    uint32_t sign = (half & 0x8000) << 16, exponent = half >> 10 & 31, mantissa = half & 0x3ff;
    if (exponent == 31) return mantissa ? from_bits(sign | QUIET_NAN) : from_bits(sign | 0x7f800000u);
    if (exponent) return from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    return from_bits(sign) + (sign ? -0x1p-24f : 0x1p-24f) * (float)mantissa;
}

INLINE Bytes load(const uint8_t *at) {
    Bytes bytes;
    memcpy(&bytes, at, sizeof bytes);
    return bytes;
}

/* GCC 12 converts vectors wider than the processor's element by element, unless it is told the instructions. */
#if defined(__AVX512F__)
INLINE Ints ints(Bytes bytes) { return (Ints)_mm512_cvtepu8_epi32((__m128i)bytes); }
INLINE Ints signed_ints(Bytes bytes) { return (Ints)_mm512_cvtepi8_epi32((__m128i)bytes); }
INLINE Floats floats(Ints values) { return (Floats)_mm512_cvtepi32_ps((__m512i)values); }
INLINE Halves lower_halves(Bits bits) { return (Halves)_mm512_cvtepi32_epi16((__m512i)bits); }
#else
INLINE Ints ints(Bytes bytes) { return __builtin_convertvector(bytes, Ints); }
INLINE Ints signed_ints(Bytes bytes) { return __builtin_convertvector((SignedBytes)bytes, Ints); }
INLINE Floats floats(Ints values) { return __builtin_convertvector(values, Floats); }
INLINE Halves lower_halves(Bits bits) { return __builtin_convertvector(bits, Halves); }
#endif

/* table[code] of each code; every code is below 16. */
INLINE Bytes looked_up(Bytes table, Bytes codes) {
#if defined(__SSSE3__)
    return (Bytes)_mm_shuffle_epi8((__m128i)table, (__m128i)codes);
#elif defined(__ARM_NEON) && defined(__aarch64__)
    return (Bytes)vqtbl1q_u8((uint8x16_t)table, (uint8x16_t)codes);
#else
    Bytes found;
    for (int i = 0; i < LANES; i++) found[i] = table[codes[i]];
    return found;
#endif
}

/* The float4_e2m1 of each code below 16. */
INLINE Floats e2m1(Bytes codes) {
#if defined(__AVX512F__)
    const Floats values = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
    return (Floats)_mm512_permutexvar_ps(_mm512_cvtepu8_epi32((__m128i)codes), (__m512)values);
#else
    /* The two upper bytes of the values in float32; the lower ones are zero. */
    const Bytes upper = {0, 0x3f, 0x3f, 0x3f, 0x40, 0x40, 0x40, 0x40, 0x80, 0xbf, 0xbf, 0xbf, 0xc0, 0xc0, 0xc0, 0xc0};
    const Bytes lower = {0, 0, 0x80, 0xc0, 0, 0x40, 0x80, 0xc0, 0, 0, 0x80, 0xc0, 0, 0x40, 0x80, 0xc0};
    return (Floats)(ints(looked_up(upper, codes)) << 24 | ints(looked_up(lower, codes)) << 16);
#endif
}

/* The float8_e4m3fn of each code. What is below the normal range is arranged as 1.m times 2**-6 and loses the 1 again. */
INLINE Floats e4m3(Bytes codes) {
    Ints code = ints(codes), rest = code & 0x7f;
    /* All bits set or none; a comparison of vectors would be made element by element. */
    Ints is_small = (rest - 8) >> 31, is_nan = (0x7e - rest) >> 31;
    Floats lost = (Floats)(is_small & (121 << 23));
    Ints bits = (Ints)((Floats)((rest << 20) + (120 << 23) - (is_small << 23)) - lost);
    return (Floats)(bits | (is_nan & (int32_t)QUIET_NAN) | (code & 0x80) << 24);
}

enum { TO_F32 = 0, TO_BF16 = 1 };

/* Where results go; the flags are constants wherever this is used, so that no code tests them. */
typedef struct {
    void *start;
    int is_bf16;
    int is_streamed;
} Sink;

/* Write sixteen results from element `at` on; rounds to nearest even. */
INLINE void put(Sink sink, int64_t at, Floats values) {
    if (sink.is_bf16) {
        Bits bits = (Bits)values;
        Halves rounded = lower_halves((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
        uint16_t *to = (uint16_t *)sink.start + at;
#if defined(__AVX__)
        if (sink.is_streamed) {
            _mm256_stream_si256((__m256i *)to, (__m256i)rounded);
            return;
        }
#endif
        memcpy(to, &rounded, sizeof rounded);
    } else {
        float *to = (float *)sink.start + at;
#if defined(__AVX512F__)
        if (sink.is_streamed) {
            _mm512_stream_ps(to, (__m512)values);
            return;
        }
#endif
        memcpy(to, &values, sizeof values);
    }
}

/* The same for the first `count` of them. */
INLINE void put_some(Sink sink, int64_t at, Floats values, int count) {
    uint8_t results[sizeof values];
    put((Sink){results, sink.is_bf16, 0}, 0, values);
    int bytes = sink.is_bf16 ? 2 : 4;
    memcpy((char *)sink.start + at * bytes, results, (size_t)(count * bytes));
}

/* Above this a result does not stay in the caches, and reading its lines before writing them is wasted. */
#define STREAMED_BYTES (8 << 20)
#define LINE_BYTES 64

INLINE int is_streamed(const void *to, int64_t bytes) {
    return bytes >= STREAMED_BYTES && (uintptr_t)to % LINE_BYTES == 0;
}

INLINE void finish_streaming(void) {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

/* Run `call`, which uses `sink`, with the flags as constants. */
#define WITH_SINK(to, dtype, streamed, call)                             \
    do {                                                                 \
        if ((dtype) == TO_BF16) {                                        \
            if (streamed) { const Sink sink = {to, 1, 1}; call; }        \
            else { const Sink sink = {to, 1, 0}; call; }                 \
        } else {                                                         \
            if (streamed) { const Sink sink = {to, 0, 1}; call; }        \
            else { const Sink sink = {to, 0, 0}; call; }                 \
        }                                                                \
        finish_streaming();                                              \
    } while (0)

#endif

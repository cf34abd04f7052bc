/* float4_e2m1 weights with one scale, a byte, per group of 16 or 32. */
#include "numbers.h"

typedef struct {
    const uint8_t *packed, *scales;
    const float *meaning;
    int64_t packed_bytes, scale_bytes, rows, columns, group;
} Groups;

/* The low nibbles of eight bytes and their high ones, alternating. */
INLINE Bytes unpacked(const uint8_t *packed) {
    uint64_t bytes;
    memcpy(&bytes, packed, sizeof bytes);
#if defined(__SSE2__)
    __m128i low = _mm_cvtsi64_si128((long long)bytes);
    return (Bytes)_mm_unpacklo_epi8(low, _mm_srli_epi16(low, 4)) & 15;
#else
    Bytes codes;
    for (int i = 0; i < 8; i++) {
        codes[2 * i] = packed[i] & 15;
        codes[2 * i + 1] = packed[i] >> 4;
    }
    return codes;
#endif
}

INLINE void all_rows(Groups from, const float *meaning, Sink sink) {
    int shift = from.group == 16 ? 0 : 1;
    for (int64_t row = 0; row < from.rows; row++) {
        const uint8_t *packed = from.packed + row * from.packed_bytes, *scales = from.scales + row * from.scale_bytes;
        for (int64_t part = 0; part < from.columns / LANES; part++) {
            float scale = meaning[scales[part >> shift]];
            put(sink, row * from.columns + part * LANES, e2m1(unpacked(packed + part * 8)) * scale);
        }
    }
}

/* Packed [rows, columns / 2], the first of a pair in the low nibble; scale bytes [rows, columns / group], the numbers
   they mean in `meaning` [256]; group is 16 or 32. Rows lie packed_bytes and scale_bytes apart. */
EXPORT void dequantize_fp4_groups(const uint8_t *packed, int64_t packed_bytes, const uint8_t *scales,
                                  int64_t scale_bytes, const float *meaning, int64_t rows, int64_t columns,
                                  int64_t group, void *to, int32_t dtype) {
    Groups from = {packed, scales, meaning, packed_bytes, scale_bytes, rows, columns, group};
    float with_one_nan[256];
    for (int i = 0; i < 256; i++) with_one_nan[i] = one_nan(meaning[i]);
    int streamed = is_streamed(to, rows * columns * (dtype == TO_BF16 ? 2 : 4));
    WITH_SINK(to, dtype, streamed, all_rows(from, with_one_nan, sink));
}

/* GGUF blocks to numbers; products are rounded one by one, as the formats' definition in float32 does. */
#include "numbers.h"

/* Scale and minimum `index` of eight, six bits each in twelve bytes. */
INLINE void scale_and_min(const uint8_t *packed, int index, float *scale, float *min) {
    if (index < 4) {
        *scale = (float)(packed[index] & 63);
        *min = (float)(packed[index + 4] & 63);
    } else {
        *scale = (float)((packed[index + 4] & 15) | (packed[index - 4] >> 6) << 4);
        *min = (float)(packed[index + 4] >> 4 | (packed[index] >> 6) << 4);
    }
}

/* Bit `first` + lane of a word, as 16 or 0. */
INLINE Ints fifth_bits(const uint8_t *word, int first) {
    uint32_t bits;
    memcpy(&bits, word, sizeof bits);
    return (Ints)((((Bits){0} + (bits >> first)) >> LANE & 1) << 4);
}

INLINE void q4_0(const uint8_t *block, Sink sink, int64_t at) {
    float d = half_to_float(block);
    Bytes q = load(block + 2);
    put(sink, at, floats(ints(q & 15) - 8) * d);
    put(sink, at + 16, floats(ints(q >> 4) - 8) * d);
}

INLINE void q4_1(const uint8_t *block, Sink sink, int64_t at) {
    float d = half_to_float(block), m = half_to_float(block + 2);
    Bytes q = load(block + 4);
    put(sink, at, floats(ints(q & 15)) * d + m);
    put(sink, at + 16, floats(ints(q >> 4)) * d + m);
}

INLINE void q5_0(const uint8_t *block, Sink sink, int64_t at) {
    float d = half_to_float(block);
    Bytes q = load(block + 6);
    put(sink, at, floats((ints(q & 15) | fifth_bits(block + 2, 0)) - 16) * d);
    put(sink, at + 16, floats((ints(q >> 4) | fifth_bits(block + 2, 16)) - 16) * d);
}

INLINE void q5_1(const uint8_t *block, Sink sink, int64_t at) {
    float d = half_to_float(block), m = half_to_float(block + 2);
    Bytes q = load(block + 8);
    put(sink, at, floats(ints(q & 15) | fifth_bits(block + 4, 0)) * d + m);
    put(sink, at + 16, floats(ints(q >> 4) | fifth_bits(block + 4, 16)) * d + m);
}

INLINE void q8_0(const uint8_t *block, Sink sink, int64_t at) {
    float d = half_to_float(block);
    put(sink, at, floats(signed_ints(load(block + 2))) * d);
    put(sink, at + 16, floats(signed_ints(load(block + 18))) * d);
}

INLINE void q2_k(const uint8_t *block, Sink sink, int64_t at) {
    float d = half_to_float(block + 80), dmin = half_to_float(block + 82);
    for (int half = 0; half < 2; half++) {
        Bytes q[2] = {load(block + 16 + half * 32), load(block + 32 + half * 32)};
        for (int part = 0; part < 8; part++) {
            uint8_t scale = block[half * 8 + part];
            float dl = d * (float)(scale & 15), ml = dmin * (float)(scale >> 4);
            put(sink, at + half * 128 + part * 16, floats(ints(q[part % 2] >> part / 2 * 2 & 3)) * dl - ml);
        }
    }
}

INLINE void q3_k(const uint8_t *block, Sink sink, int64_t at) {
    const uint8_t *scales = block + 96;
    Bytes mask[2] = {load(block), load(block + 16)};
    float d = half_to_float(block + 108);
    for (int half = 0; half < 2; half++) {
        Bytes q[2] = {load(block + 32 + half * 32), load(block + 48 + half * 32)};
        for (int part = 0; part < 8; part++) {
            int low = half ? scales[part] >> 4 : scales[part] & 15;
            int high = scales[8 + part % 4] >> (half * 4 + part / 4 * 2) & 3;
            Ints is_whole = ints(mask[part % 2] >> (half * 4 + part / 2) & 1);
            Ints values = ints(q[part % 2] >> part / 2 * 2 & 3) + (is_whole << 2) - 4;
            put(sink, at + half * 128 + part * 16, floats(values) * (d * (float)((low | high << 4) - 32)));
        }
    }
}

INLINE void q4_k(const uint8_t *block, Sink sink, int64_t at) {
    float d = half_to_float(block), dmin = half_to_float(block + 2);
    for (int part = 0; part < 8; part++) {
        float scale, min;
        scale_and_min(block + 4, part, &scale, &min);
        float dl = d * scale, ml = dmin * min;
        for (int i = 0; i < 32; i += LANES) {
            Bytes q = load(block + 16 + part / 2 * 32 + i);
            put(sink, at + part * 32 + i, floats(ints(part % 2 ? q >> 4 : q & 15)) * dl - ml);
        }
    }
}

INLINE void q5_k(const uint8_t *block, Sink sink, int64_t at) {
    float d = half_to_float(block), dmin = half_to_float(block + 2);
    Bytes fifth[2] = {load(block + 16), load(block + 32)};
    for (int part = 0; part < 8; part++) {
        float scale, min;
        scale_and_min(block + 4, part, &scale, &min);
        float dl = d * scale, ml = dmin * min;
        for (int i = 0; i < 2; i++) {
            Bytes q = load(block + 48 + part / 2 * 32 + i * LANES);
            q = (part % 2 ? q >> 4 : q & 15) | (fifth[i] >> part & 1) << 4;
            put(sink, at + part * 32 + i * LANES, floats(ints(q)) * dl - ml);
        }
    }
}

INLINE void q6_k(const uint8_t *block, Sink sink, int64_t at) {
    const int8_t *scales = (const int8_t *)block + 192;
    float d = half_to_float(block + 208);
    for (int half = 0; half < 2; half++) {
        Bytes high[2] = {load(block + 128 + half * 32), load(block + 144 + half * 32)};
        for (int part = 0; part < 8; part++) {
            Bytes q = load(block + half * 64 + part % 4 * LANES);
            q = (part / 4 ? q >> 4 : q & 15) | (high[part % 2] >> part / 2 * 2 & 3) << 4;
            put(sink, at + half * 128 + part * 16, floats(ints(q) - 32) * (d * (float)scales[half * 8 + part]));
        }
    }
}

/* The low nibbles of sixteen bytes, then their high ones, looked up in a table of signed numbers. */
INLINE void nibbles(const uint8_t *packed, SignedBytes table, float d, Sink sink, int64_t at) {
    Bytes q = load(packed);
    put(sink, at, floats(signed_ints(looked_up((Bytes)table, q & 15))) * d);
    put(sink, at + 16, floats(signed_ints(looked_up((Bytes)table, q >> 4))) * d);
}

static const SignedBytes IQ4_VALUES = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
/* Doubled float4_e2m1; integers, so that there is no negative zero. */
static const SignedBytes MXFP4_VALUES = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

INLINE void iq4_nl(const uint8_t *block, Sink sink, int64_t at) {
    nibbles(block + 2, IQ4_VALUES, half_to_float(block), sink, at);
}

INLINE void iq4_xs(const uint8_t *block, Sink sink, int64_t at) {
    float d = half_to_float(block);
    int high = block[2] | block[3] << 8;
    for (int part = 0; part < 8; part++) {
        int scale = (block[4 + part / 2] >> part % 2 * 4 & 15) | (high >> 2 * part & 3) << 4;
        nibbles(block + 8 + part * 16, IQ4_VALUES, d * (float)(scale - 32), sink, at + part * 32);
    }
}

INLINE void mxfp4(const uint8_t *block, Sink sink, int64_t at) {
    uint32_t e = block[0];
    nibbles(block + 1, MXFP4_VALUES, from_bits(e < 2 ? 0x00200000u << e : (e - 1) << 23), sink, at);
}

/* `count` blocks that lie one after the other. */
#define DEQUANTIZE(name, block_bytes, block_elements)                                              \
    INLINE void all_##name(const uint8_t *blocks, int64_t count, Sink sink) {                      \
        for (int64_t i = 0; i < count; i++) name(blocks + i * (block_bytes), sink, i * (block_elements)); \
    }                                                                                              \
    EXPORT void dequantize_##name(const uint8_t *blocks, int64_t count, void *to, int32_t dtype) { \
        int streamed = is_streamed(to, count * (block_elements) * (dtype == TO_BF16 ? 2 : 4));     \
        WITH_SINK(to, dtype, streamed, all_##name(blocks, count, sink));                           \
    }

DEQUANTIZE(q4_0, 18, 32)
DEQUANTIZE(q4_1, 20, 32)
DEQUANTIZE(q5_0, 22, 32)
DEQUANTIZE(q5_1, 24, 32)
DEQUANTIZE(q8_0, 34, 32)
DEQUANTIZE(q2_k, 84, 256)
DEQUANTIZE(q3_k, 110, 256)
DEQUANTIZE(q4_k, 144, 256)
DEQUANTIZE(q5_k, 176, 256)
DEQUANTIZE(q6_k, 210, 256)
DEQUANTIZE(iq4_nl, 18, 32)
DEQUANTIZE(iq4_xs, 136, 256)
DEQUANTIZE(mxfp4, 17, 32)

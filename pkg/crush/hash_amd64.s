#include "textflag.h"

// Eight draws of a bucket at a time: hash3 of hash.go on 32-bit lanes, and two such groups
// side by side, as each step of the mix waits for the one before it.

// RIGHT is p = (p - q - s) ^ s>>n, LEFT the same with s<<n, on two groups.
#define RIGHT(p, q, s, t, P, Q, S, T, n) \
	VPSUBD q, p, p   \
	VPSUBD Q, P, P   \
	VPSRLD $n, s, t  \
	VPSRLD $n, S, T  \
	VPSUBD s, p, p   \
	VPSUBD S, P, P   \
	VPXOR  t, p, p   \
	VPXOR  T, P, P

#define LEFT(p, q, s, t, P, Q, S, T, n) \
	VPSUBD q, p, p   \
	VPSUBD Q, P, P   \
	VPSLLD $n, s, t  \
	VPSLLD $n, S, T  \
	VPSUBD s, p, p   \
	VPSUBD S, P, P   \
	VPXOR  t, p, p   \
	VPXOR  T, P, P

#define MIX(a, b, c, t, A, B, C, T) \
	RIGHT(a, b, c, t, A, B, C, T, 13) \
	LEFT(b, c, a, t, B, C, A, T, 8)   \
	RIGHT(c, a, b, t, C, A, B, T, 13) \
	RIGHT(a, b, c, t, A, B, C, T, 12) \
	LEFT(b, c, a, t, B, C, A, T, 16)  \
	RIGHT(c, a, b, t, C, A, B, T, 5)  \
	RIGHT(a, b, c, t, A, B, C, T, 3)  \
	LEFT(b, c, a, t, B, C, A, T, 10)  \
	RIGHT(c, a, b, t, C, A, B, T, 15)

// The same on one group.
#define RIGHT1(p, q, s, t, n) \
	VPSUBD q, p, p   \
	VPSRLD $n, s, t  \
	VPSUBD s, p, p   \
	VPXOR  t, p, p

#define LEFT1(p, q, s, t, n) \
	VPSUBD q, p, p   \
	VPSLLD $n, s, t  \
	VPSUBD s, p, p   \
	VPXOR  t, p, p

#define MIX1(a, b, c, t) \
	RIGHT1(a, b, c, t, 13) \
	LEFT1(b, c, a, t, 8)   \
	RIGHT1(c, a, b, t, 13) \
	RIGHT1(a, b, c, t, 12) \
	LEFT1(b, c, a, t, 16)  \
	RIGHT1(c, a, b, t, 5)  \
	RIGHT1(a, b, c, t, 3)  \
	LEFT1(b, c, a, t, 10)  \
	RIGHT1(c, a, b, t, 15)

// The words of mixed, and where they lie in registers: a is the input, b the item, c the
// draw's number, h the hash, x and y the constants of hash.go.
DATA ·mixed+0(SB)/4, $231232
DATA ·mixed+4(SB)/4, $1232
DATA ·mixed+8(SB)/4, $1315423911
GLOBL ·mixed(SB), RODATA|NOPTR, $12

// func hashEights(out *uint32, ids *ItemID, n int, x, r uint32)
TEXT ·hashEights(SB), NOSPLIT, $0-32
	MOVQ out+0(FP), DI
	MOVQ ids+8(FP), SI
	MOVQ n+16(FP), CX
	MOVL x+24(FP), AX
	MOVL r+28(FP), BX
	VMOVD        AX, X14
	VMOVD        BX, X15
	VPBROADCASTD X14, Y14
	VPBROADCASTD X15, Y15

pairs:
	CMPQ CX, $16
	JLT  single
	VMOVDQA      Y14, Y0
	VMOVDQA      Y14, Y7
	VMOVDQU      (SI), Y1
	VMOVDQU      32(SI), Y8
	VMOVDQA      Y15, Y2
	VMOVDQA      Y15, Y9
	VPBROADCASTD ·mixed+0(SB), Y3
	VPBROADCASTD ·mixed+0(SB), Y10
	VPBROADCASTD ·mixed+4(SB), Y4
	VPBROADCASTD ·mixed+4(SB), Y11
	VPBROADCASTD ·mixed+8(SB), Y5
	VPXOR        Y0, Y5, Y5
	VPXOR        Y2, Y5, Y5
	VPXOR        Y8, Y5, Y12
	VPXOR        Y1, Y5, Y5
	MIX(Y0, Y1, Y5, Y6, Y7, Y8, Y12, Y13)
	MIX(Y2, Y3, Y5, Y6, Y9, Y10, Y12, Y13)
	MIX(Y4, Y0, Y5, Y6, Y11, Y7, Y12, Y13)
	MIX(Y1, Y3, Y5, Y6, Y8, Y10, Y12, Y13)
	MIX(Y4, Y2, Y5, Y6, Y11, Y9, Y12, Y13)
	VMOVDQU      Y5, (DI)
	VMOVDQU      Y12, 32(DI)
	ADDQ         $64, DI
	ADDQ         $64, SI
	SUBQ         $16, CX
	JMP          pairs

single:
	CMPQ CX, $8
	JLT  done
	VMOVDQA      Y14, Y0
	VMOVDQU      (SI), Y1
	VMOVDQA      Y15, Y2
	VPBROADCASTD ·mixed+0(SB), Y3
	VPBROADCASTD ·mixed+4(SB), Y4
	VPBROADCASTD ·mixed+8(SB), Y5
	VPXOR        Y0, Y5, Y5
	VPXOR        Y1, Y5, Y5
	VPXOR        Y2, Y5, Y5
	MIX1(Y0, Y1, Y5, Y6)
	MIX1(Y2, Y3, Y5, Y6)
	MIX1(Y4, Y0, Y5, Y6)
	MIX1(Y1, Y3, Y5, Y6)
	MIX1(Y4, Y2, Y5, Y6)
	VMOVDQU      Y5, (DI)

done:
	VZEROUPPER
	RET

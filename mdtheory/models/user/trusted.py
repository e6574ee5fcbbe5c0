"""Operations of torch whose second derivatives are right wherever they are finite."""

from __future__ import annotations

TRUSTED = frozenset(
    f"{name}Backward{number}"
    for names, number in (
        (
            "Abs Acos AdaptiveAvgPool2D AdaptiveAvgPool3D AdaptiveMaxPool2D Add Addbmm Addcdiv "
            "Addcmul Addmm Addmv Addr AffineGridGenerator Amax Amin AsStrided Asin Asinh Atan2 "
            "Atan Atanh AvgPool2D AvgPool3D Baddbmm BinaryCrossEntropy "
            "BinaryCrossEntropyWithLogits Bmm Cat Ceil Celu Clamp ClampMin Clone Col2Im Complex "
            "Conj ConstantPadNd Convolution Cos Cosh Cummax Cumprod Cumsum DiagEmbed Diagonal "
            "DiagonalScatter Dist Div Dot Elu Embedding Erf Erfc Exp2 Exp Expand Expm1 FftC2C "
            "FftC2R FftR2C Flip Floor Fmod Frac Gather Gelu Glu GridSampler2D Hardshrink "
            "Hardswish Hardtanh HuberLoss Hypot Im2Col IndexAdd Index IndexCopy IndexFill "
            "IndexPut IndexSelect LeakyRelu Lerp Lgamma LinalgCholeskyEx LinalgCross LinalgInvEx "
            "LinalgMatrixExp LinalgSolveEx LinalgSolveTriangular LinalgVectorNorm Log10 Log1P "
            "Log2 Log LogSigmoid LogSoftmax Logaddexp Logcumsumexp Logsumexp MaskedFill "
            "MaskedScatter MaskedSelect Max MaxPool2DWithIndices MaxPool3DWithIndices "
            "MaxUnpool2D Maximum Mean Min Minimum Mish Mm MseLoss Mul Mv NativeBatchNorm "
            "NativeGroupNorm NativeLayerNorm Neg NllLoss2D NllLoss Permute PixelShuffle Pow "
            "PreluKernel Prod Reciprocal ReflectionPad1D ReflectionPad2D Relu Remainder Repeat "
            "ReplicationPad1D ReplicationPad2D ReshapeAlias Roll Round Rsqrt SafeSoftmax "
            "ScatterAdd Scatter ScatterReduce Select SelectScatter Sigmoid Sign Silu Sin Sinc "
            "Sinh Slice SliceScatter SmoothL1Loss SoftMarginLoss Softmax Softplus Softshrink "
            "Sort Split Sqrt Squeeze Stack Std Sub Sum T Tan Tanh Threshold ToCopy Topk Trace "
            "Transpose Tril Trilinear Triu Trunc Unbind Unfold UnsafeSplit UnsafeView Unsqueeze "
            "UpsampleBicubic2D UpsampleBilinear2D UpsampleLinear1D UpsampleNearest1D "
            "UpsampleNearest2D Var VarMean ViewAsComplex ViewAsReal View Where",
            0,
        ),
        (
            "Add Clamp Lerp Max Mean Median Min Mul Norm Pow Prod Squeeze Sub Sum Transpose",
            1,
        ),
        (
            "Pow",
            2,
        ),
    )
    for name in names.split()
) | {"AccumulateGrad", "CopyBackwards", "CopySlices"}
"""Each occurs in the tests, which compare it with differences of gradients; what is not here is
compared when a model holds it."""

"""Networks from torch modules, .mat and ONNX files, refusing what has no exact form."""

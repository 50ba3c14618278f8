"""An artifact in the form of another runtime: ONNX, torch.export, AOTInductor, OpenVINO, Triton."""

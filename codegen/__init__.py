"""Code generator: model.onnx -> graph -> plan -> C. Owns every file format that trainer and host share."""

"""From unlabelled images to a tested encoder, in Python. Run: python examples/quickstart.py"""

import selfsup

run = selfsup.pretrain("digits", task="rotation", encoder="convnet", epochs=2, pad=1, flip=0.0, out="runs/quickstart")

result = selfsup.evaluate(run, data="digits", shots="1,10", scratch=False)
for name in ("rotation", "untrained", "raw pixels"):
    score = result.score(name, "linear", 10)
    print(f"{name}: {score.mean:.3f} ± {score.half:.3f} with 10 labels per class")

encoder = selfsup.load(run)  # a torch module: (B, C, H, W) -> (B, dim)
print(f"{encoder.dim} numbers an image;", selfsup.embed(run, "digits", out="runs/quickstart/embeddings.parquet"))

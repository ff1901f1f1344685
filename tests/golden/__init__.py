"""Golden files: what earlier versions wrote, and every later version must read and go on from."""

TINY = """
data: {name: digits}
noise: {size: 4}
network:
  generator: {hidden: [8]}
  discriminator: {units: [4, 4], pieces: 2, init_range: 0.5}
algorithm: {batch_size: 20, steps: 8}
"""
SAVED, RESUMED = 5, 8  # steps

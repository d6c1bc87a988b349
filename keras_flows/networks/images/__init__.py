"""Networks for images and latents."""

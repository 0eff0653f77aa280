"""Writes the pictures of this folder, and beside each, as NAME.rgb, the pixels that OpenCV reads from it.

pip install 'numpy<2' opencv-python-headless==4.6.0.66 pillow==13.0.0; ImageMagick 6 for the interlaced one.
Run in this folder.
"""
import subprocess

import cv2
import numpy as np
from PIL import Image

WIDTH, HEIGHT = 24, 16

y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
rgb = np.stack([10 * x + 5, 15 * y + 5, 255 - 5 * (x + y)], axis=2).astype(np.uint8)
grey = rgb[:, :, 0]
alpha = (255 - 8 * x).astype(np.uint8)
deep = rgb.astype(np.uint16) * 256 + 200  # the lower byte would round up
bgr, bgr16 = rgb[:, :, ::-1], deep[:, :, ::-1]

cv2.imwrite("rgb8.png", bgr)
cv2.imwrite("rgb16.png", bgr16)
cv2.imwrite("rgba8.png", np.dstack([bgr, alpha]))
cv2.imwrite("rgba16.png", np.dstack([bgr16, alpha.astype(np.uint16) * 257]))
cv2.imwrite("grey8.png", grey)
cv2.imwrite("grey16.png", deep[:, :, 0])
Image.fromarray((grey > 127).astype(np.uint8) * 255).convert("1").save("grey1.png")
Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)]).save("grey_alpha.png")
palette = Image.fromarray(rgb).quantize(16, dither=Image.Dither.NONE)
palette.save("palette.png")
palette.save("palette_transparent.png", transparency=3)
subprocess.run(["convert", "rgb8.png", "-interlace", "PNG", "-strip", "PNG24:interlaced.png"], check=True)

Image.fromarray(rgb).save("rgb.bmp")
palette.save("palette.bmp")
cv2.imwrite("rgba.bmp", np.dstack([bgr, alpha]))

picture = Image.fromarray(rgb)
picture.save("baseline.jpg", quality=95)
picture.save("subsampling_none.jpg", quality=95, subsampling=0)
picture.save("progressive.jpg", quality=95, progressive=True)
picture.save("restarts.jpg", quality=95, restart_marker_blocks=1)
Image.fromarray(grey).save("grey.jpg", quality=95)
black = 255 - rgb.max(axis=2)
Image.merge("CMYK", [Image.fromarray(c) for c in (*(255 - black - rgb.transpose(2, 0, 1)), black)]).save(
    "cmyk.jpg", quality=95)
subprocess.run(["convert", "rgb8.png", "-colorspace", "CMYK", "-sampling-factor", "1x1", "-quality", "95",
                "ycck.jpg"], check=True)

cv2.imwrite("one_pixel.png", bgr[5:6, 7:8])
cv2.imwrite("one_pixel.jpg", bgr[5:6, 7:8])

for name in ("rgb8.png rgb16.png rgba8.png rgba16.png grey8.png grey16.png grey1.png grey_alpha.png palette.png "
             "palette_transparent.png interlaced.png rgb.bmp palette.bmp rgba.bmp baseline.jpg subsampling_none.jpg "
             "progressive.jpg restarts.jpg grey.jpg cmyk.jpg ycck.jpg one_pixel.png one_pixel.jpg").split():
    cv2.imread(name, cv2.IMREAD_COLOR)[:, :, ::-1].tofile(name + ".rgb")

# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Be a camera, and on request a detector: publish images and regions from a process.

    python -m bench._camera --topic left/image --width 1280 --height 720

Says {"ready": ...} once subscribed to. 'go' starts it, 'stop' stops it and makes it tell what
it sent; the end of stdin ends the process. Stamps are the wall clock when publishing begins.
"""

from __future__ import annotations

import argparse
import select
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import rclpy
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from bench._common import scene
from bench._processes import answer
from pixelrefer_ros import msg as ros
from pixelrefer_ros.node.conversions import box_to_msg, ns_to_stamp
from pixelrefer_ros.node.images import fill_image

if TYPE_CHECKING:
    from collections.abc import Callable

_MATCH_S = 120.0


def publish(
    args: argparse.Namespace,
    send_image: Callable[[Image], None],
    send_regions: Callable[[ros.RegionArray], None],
    stop: threading.Event,
) -> tuple[list[int], list[tuple[int, int]]]:
    """Publish at the rate until told to stop; what comes too late is skipped, as cameras do.

    Returns:
        The stamps of the images, and (stamp, wall ns when sent) of the regions.
    """
    picture, boxes = scene(args.width, args.height)
    image = fill_image(Image(), picture)
    image.header.frame_id = args.topic
    regions = ros.RegionArray(
        regions=[
            ros.Region(
                region_id=f'r{number}', camera=args.camera, kind=ros.Region.KIND_BOX,
                box=box_to_msg(box),
            )
            for number, box in enumerate(boxes[: args.regions])
        ]
    )  # fmt: skip
    stamps: list[int] = []
    regions_sent: list[tuple[int, int]] = []
    began_s = time.monotonic()
    tick = 0
    while not stop.wait(max(0.0, began_s + tick / args.rate - time.monotonic())):
        stamp_ns = time.time_ns()
        image.header.stamp = ns_to_stamp(stamp_ns)
        send_image(image)
        if args.regions and len(stamps) % args.region_every == 0:
            regions.header.stamp = image.header.stamp
            send_regions(regions)
            regions_sent.append((stamp_ns, time.time_ns()))
        stamps.append(stamp_ns)
        tick = max(tick + 1, int((time.monotonic() - began_s) * args.rate))
    return stamps, regions_sent


def main() -> int:
    """Run until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--topic', default='image')
    parser.add_argument('--camera', default='')
    parser.add_argument('--width', type=int, required=True)
    parser.add_argument('--height', type=int, required=True)
    parser.add_argument('--rate', type=float, default=30.0)
    parser.add_argument('--regions', type=int, default=0)
    parser.add_argument('--region-every', type=int, default=6)
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and closes stdin
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node('bench_camera_' + args.camera)
    images = node.create_publisher(Image, args.topic, qos_profile_sensor_data)
    regions = node.create_publisher(ros.RegionArray, 'pixelrefer/regions', QoSProfile(depth=50))
    until_s = time.monotonic() + _MATCH_S
    while not (
        images.get_subscription_count() and (not args.regions or regions.get_subscription_count())
    ):
        if time.monotonic() > until_s:
            print(f'nobody subscribes to {args.topic}', file=sys.stderr)
            return 1
        if select.select([sys.stdin], [], [], 0.02)[0]:  # nothing is told yet: stdin ended
            return 0
    answer({'ready': args.topic})
    stop = threading.Event()
    result: list[tuple[list[int], list[tuple[int, int]]]] = []
    worker = threading.Thread(
        target=lambda: result.append(publish(args, images.publish, regions.publish, stop))
    )
    for line in sys.stdin:
        if line.strip() == 'go':
            worker.start()
        elif line.strip() == 'stop':
            stop.set()
            worker.join()
            stamps, regions_sent = result[0]
            answer({'stamps_ns': stamps, 'regions_sent_ns': regions_sent})
    stop.set()
    if worker.is_alive():
        worker.join()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())

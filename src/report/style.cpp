#include "report/style.h"

namespace nsa::report {

std::string page_style() {
  return R"css(
:root{color-scheme:light dark;--ink:#1b1b1b;--soft:#5c5c5c;--line:#d9d9d9;--paper:#fff;--tint:#f5f6f7}
@media screen and (prefers-color-scheme:dark){:root{--ink:#e6e6e6;--soft:#a8a8a8;--line:#3a3d42;--paper:#16181c;
--tint:#202329}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:908px;padding:24px;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}
h1{font-size:26px;line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:18px;margin:36px 0 6px}
h3{font-size:14px;margin:0 0 2px}
p{margin:6px 0}
.soft,figcaption,.small{color:var(--soft);font-size:13px}
.verdict{font-size:17px;border-left:4px solid #0072B2;padding:2px 0 2px 12px;margin:14px 0;overflow-wrap:anywhere}
.scroll{overflow-x:auto;margin:10px 0}
table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums;min-width:100%}
th,td{padding:5px 10px;text-align:right;vertical-align:top;border-bottom:1px solid var(--line)}
th{font-weight:600;white-space:nowrap}
thead th{border-bottom:2px solid var(--soft)}
th:first-child,td:first-child{text-align:left;padding-left:0}
td{white-space:nowrap}
td .small,th .small{display:block;font-weight:400;font-size:12px}
.compact td .small{white-space:normal}
.text th,.text td{text-align:left}
.text td{white-space:normal;min-width:64px;max-width:420px;overflow-wrap:break-word}
td.strong{font-weight:650}
.compact thead th{white-space:normal;overflow-wrap:anywhere;min-width:76px}
figure{margin:8px 0 0;position:relative}
svg{display:block;max-width:100%;height:auto;overflow:visible}
.narrow{display:none}
.grid2{display:grid;grid-template-columns:repeat(auto-fit,minmax(340px,1fr));gap:22px 24px;margin-top:12px}
.grid2 svg{width:100%}
svg .name{font-weight:600}
.keys{display:flex;flex-wrap:wrap;gap:6px 8px;margin:10px 0}
.keys button{font:inherit;font-size:13px;color:inherit;background:var(--tint);border:1px solid var(--line);
border-radius:14px;padding:2px 10px;
cursor:pointer}
.keys button[aria-pressed=false]{opacity:.45;text-decoration:line-through}
.tip{position:absolute;pointer-events:none;background:var(--paper);border:1px solid var(--soft);border-radius:4px;
padding:3px 8px;font-size:12px;
line-height:1.4;white-space:nowrap;display:none;z-index:2;font-variant-numeric:tabular-nums}
.cross{stroke:var(--soft);stroke-dasharray:2 2}
.off-raw .raw{display:none}
code{font-size:13px;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 14px;font-size:14px;margin:8px 0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
@media (max-width:619px){body{padding:16px}.wide{display:none}.narrow{display:block;width:100%}h1{font-size:22px}
.verdict{font-size:16px}
th,td{padding:5px 7px}.grid2{grid-template-columns:1fr}table{font-size:13px}.compact th,.compact td{
white-space:normal;padding:4px 5px}
.compact .small{font-size:11px}.compact td:not(:last-child) .small{white-space:nowrap}}
@media print{body{max-width:none;padding:0;font-size:10.5pt}.keys,.tip{display:none}.narrow{display:none!important}
.wide{display:block!important}
figure,tr,.verdict{break-inside:avoid}h2,h3{break-after:avoid}.scroll{overflow:visible}.grid2{
grid-template-columns:1fr 1fr}table{font-size:9pt}
th,td{padding:3px 7px}}
)css";
}

std::string page_script() {
  return R"js(
(function(){
'use strict';
var keys=document.querySelector('.keys');
function toggle(text,on){var b=document.createElement('button');b.type='button';b.textContent=text;
b.setAttribute('aria-pressed','true');
b.addEventListener('click',function(){var now=b.getAttribute('aria-pressed')!=='true';b.setAttribute('aria-pressed',
String(now));on(now);});
keys.appendChild(b);}
if(keys){JSON.parse(keys.dataset.groups).forEach(function(name,g){toggle(name,function(show){
document.querySelectorAll('.chart:not([data-id^=gate]) [data-g="'+g+'"]').forEach(function(e){
e.style.display=show?'':'none';});});});
toggle('raw values',function(show){document.body.classList.toggle('off-raw',!show);});}
function short(v){var a=Math.abs(v);if(!isFinite(v))return '';if(a>=1e9)return (v/1e9).toPrecision(4)+'G';
if(a>=1e6)return (v/1e6).toPrecision(4)+'M';
if(a>=1e4)return (v/1e3).toPrecision(4)+'k';
return a>=100?v.toFixed(0):a>=1?v.toFixed(4):v.toPrecision(4);}
function points(path){if(!path.pts){path.pts=(path.getAttribute('d').match(/[ML]-?[\d.]+ -?[\d.]+/g)||[])
.map(function(p){return p.slice(1).split(' ').map(Number);});}return path.pts;}
document.querySelectorAll('figure svg').forEach(function(svg){
var chart=svg.querySelector('.chart');if(!chart)return;
var plot=chart.dataset.plot.split(',').map(Number),ax=chart.dataset.x.split(','),ay=chart.dataset.y.split(',');
var tip=document.createElement('div');tip.className='tip';svg.parentNode.appendChild(tip);
var cross=document.createElementNS('http://www.w3.org/2000/svg','path');cross.setAttribute('class','cross');
chart.appendChild(cross);
function value(a,s){return a[2]==='log'?Math.exp(Math.log(+a[0])+s*Math.log(a[1]/a[0])):+a[0]+s*(a[1]-a[0]);}
function hide(){tip.style.display='none';cross.removeAttribute('d');}
svg.addEventListener('pointerleave',hide);
svg.addEventListener('pointermove',function(e){
var box=svg.getBoundingClientRect(),vb=svg.viewBox.baseVal,x=(e.clientX-box.left)*vb.width/box.width;
if(x<plot[0]-3||x>plot[0]+plot[2]+3)return hide();
var rows=[];chart.querySelectorAll('path.line').forEach(function(path){
if(path.style.display==='none'||rows.length>11)return;
var best=null;points(path).forEach(function(p){if(best===null||Math.abs(p[0]-x)<Math.abs(best[0]-x))best=p;});
if(best&&Math.abs(best[0]-x)<6)rows.push(path.dataset.name+'  '+short(value(ay,1-(best[1]-plot[1])/plot[3])));});
if(!rows.length)return hide();
tip.textContent='';
[chart.dataset.xName+' '+short(value(ax,(x-plot[0])/plot[2]))].concat(rows).forEach(function(t){
var d=document.createElement('div');d.textContent=t;
tip.appendChild(d);});
tip.style.display='block';var left=e.clientX-box.left+14;if(left+tip.offsetWidth>box.width)left-=tip.offsetWidth+28;
tip.style.left=Math.max(0,left)+'px';tip.style.top=(svg.offsetTop||0)+Math.max(0,e.clientY-box.top-20)+'px';
cross.setAttribute('d','M'+x+' '+plot[1]+'v'+plot[3]);});});
})();
)js";
}

}  // namespace nsa::report
